"""The small files of a Hugging Face folder: which are carried along, and that none leads outside.

Copied byte for byte: everything at the top of the folder (and named chat templates) that is neither
weights nor code: config, generation config, tokenizer, chat template, model card, licence. Symbolic
links are followed only to where Hugging Face's own cache puts them.
"""

import logging
import shutil
from pathlib import Path, PurePosixPath

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import EXPORT_FILE

logger = logging.getLogger(__name__)

TENSORS_FILE = "tensors.json"
_OURS = {TENSORS_FILE, EXPORT_FILE}
_TEMPLATE_FOLDER = "additional_chat_templates"
# A tokenizer.json of the largest vocabularies has 35 MB; beyond this it is no small file.
MAX_SMALL_FILE_BYTES = 64 * 2**20
_WEIGHT_INDEXES = {"model.safetensors.index.json", "pytorch_model.bin.index.json"}
# fmt: off
_WEIGHT_SUFFIXES = {
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx",
    ".npz", ".npy", ".distcp", ".tflite",
}
_CODE_SUFFIXES = {
    ".py", ".pyc", ".so", ".pkl", ".pickle", ".sh", ".ipynb", ".zip", ".tar", ".gz",
}
# fmt: on


def resolve_inside(folder: Path, name: str) -> Path:
    """Return the path of `name` in `folder` after checking that it does not lead outside.

    Links into `../../blobs` are allowed: so Hugging Face's cache stores a snapshot. `blobs` itself
    may be a link to a larger disk.

    Raises:
        CheckpointError: The name or the link's target is outside the folder, or it is a pipe, a
            device or a folder, and not a file.
    """
    parts = PurePosixPath(name).parts
    path = folder / name
    roots = [folder.resolve(), (folder.resolve().parent.parent / "blobs").resolve()]
    is_plain = bool(parts) and not PurePosixPath(name).is_absolute() and ".." not in parts
    if is_plain and any(path.resolve().is_relative_to(root) for root in roots):
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: is no file that could be read. Remove or replace it.")
        return path
    raise CheckpointError(
        f"{folder}: {name!r} leads outside the folder"
        + (f" (to {path.resolve()})" if is_plain and path.is_symlink() else "")
        + ". It was not read. Put the file itself into the folder."
    )


def small_files(folder: Path) -> list[str]:
    """Return the names, relative to `folder`, of the files to carry along, sorted.

    Raises:
        CheckpointError: A file is a link that leads outside the folder.
    """
    candidates = [path for path in folder.iterdir() if not path.is_dir()]
    candidates += (folder / _TEMPLATE_FOLDER).glob("*.jinja")
    names = []
    for path in sorted(candidates):
        name = str(path.relative_to(folder))
        if not _is_carried(path.name):
            continue
        size = resolve_inside(folder, name).stat().st_size
        if size > MAX_SMALL_FILE_BYTES:
            logger.warning("%s: not carried along, %d bytes is no small file", path, size)
            continue
        names.append(name)
    return names


def copy_files(source: Path, names: list[str], target: Path) -> None:
    """Copy the named files' bytes (not their modes) below `target`."""
    for name in names:
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(resolve_inside(source, name), destination)


def _is_carried(name: str) -> bool:
    if name.startswith(".") or name in _WEIGHT_INDEXES or name in _OURS:
        return False
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _CODE_SUFFIXES:
        logger.warning("%s: not carried along, code and archives are left out", name)
    return suffix not in _WEIGHT_SUFFIXES and suffix not in _CODE_SUFFIXES
