"""A Hugging Face folder as the base of a run, without a checkpoint of its weights.

OUT/_base/ stands for that checkpoint: its msm_state.json and its hf/ as `msm convert import` would
write them, no weights, and source.json, which says of which files this was true. It is made once,
since every weight file has to be hashed, and anew when one of them changed. Planning reads the
headers of the weight files only.
"""

import os
import time
from pathlib import Path

import orjson

from megatron_msm.convert.huggingface.files import TENSORS_FILE, copy_files, small_files
from megatron_msm.convert.import_sources import HfSource, imported_state, open_hf_source
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    STATE_FILE,
    CheckpointState,
    LineageEntry,
    file_records,
)
from megatron_msm.formats.files import folder_written_aside, sha256_of_file, write_json_atomic
from megatron_msm.formats.tokenizer_files import read_tokenizer_files
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.hf_config import read_hf_config, read_model_shape

BASE_FOLDER = "_base"
"""No phase can have this name."""
_SOURCE_FILE = "source.json"


def base_folder(out: Path) -> Path:
    """Return the folder that stands for a checkpoint of the run's Hugging Face folder."""
    return out / BASE_FOLDER


def is_current(base: Path, hf_folder: Path) -> bool:
    """Return whether the folder is there and the Hugging Face folder is as it was then.

    Raises:
        CheckpointError: The Hugging Face folder is incomplete, damaged or of an unsupported model.
    """
    return _is_of(base, _describe_files(_open(hf_folder)))


def forecast(hf_folder: Path) -> CheckpointState:
    """Return the state of the base that is to be made, but for the hashes of its weights."""
    config, tokenizer = read_hf_config(hf_folder), read_tokenizer_files(hf_folder)
    return imported_state(config, tokenizer, LineageEntry(stage="import", identity="not known yet"))


def prepare_hf_base(hf_folder: Path, out: Path, *, timeout_min: float) -> None:
    """Make the base where it is not current; rank 0 does, the others wait for it.

    Raises:
        CheckpointError: The Hugging Face folder is incomplete, damaged or of an unsupported model,
            or rank 0 did not come to an end.
    """
    base, source = base_folder(out), _open(hf_folder)
    files = _describe_files(source)
    if os.environ.get("RANK", "0") != "0":
        _wait_for(base, files, timeout_min)
    elif not _is_of(base, files):
        _write_base(base, source, files)


def _open(hf_folder: Path) -> HfSource:
    shape = read_model_shape(hf_folder)
    return open_hf_source(hf_folder, shape, table_for(shape).expand(shape))


def verify_source(
    hf_folder: Path, state: CheckpointState, *, part: int = 0, num_parts: int = 1
) -> None:
    """Compare weight files with the hashes that the base was recorded with.

    Args:
        hf_folder: The folder.
        state: The base's.
        part: Which share of the files to read, when several processes divide them.
        num_parts: How many shares there are.

    Raises:
        CheckpointError: A file changed.
    """
    hashes = state.lineage[0].details["weights_sha256"]
    assert isinstance(hashes, dict), "the lineage of a base made from a Hugging Face folder"
    for name in sorted(hashes)[part::num_parts]:
        if sha256_of_file(hf_folder / name) != hashes[name]:
            raise CheckpointError(
                f"{hf_folder / name}: changed while the run was being started. Run it again."
            )


def _write_base(base: Path, source: HfSource, files: dict[str, list[int]]) -> None:
    config, tokenizer = read_hf_config(source.folder), read_tokenizer_files(source.folder)
    with folder_written_aside(base) as tmp:
        copy_files(source.folder, small_files(source.folder), tmp / HF_FOLDER)
        write_json_atomic(tmp / HF_FOLDER / TENSORS_FILE, source.tensor_list())
        state = imported_state(config, tokenizer, source.lineage_entry())
        state = state.model_copy(update={"files": file_records(tmp, {})})
        write_json_atomic(tmp / _SOURCE_FILE, files)
        write_json_atomic(tmp / STATE_FILE, state.model_dump(mode="json"))


def _describe_files(source: HfSource) -> dict[str, list[int]]:
    """Return size and time of the last change of everything that the base is made of."""
    folder = source.folder
    paths = [*source.weights.files, *(folder / name for name in small_files(folder))]
    stats = {str(path.resolve()): path.stat() for path in paths}
    return {path: [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}


def _is_of(base: Path, files: dict[str, list[int]]) -> bool:
    try:
        found = orjson.loads((base / _SOURCE_FILE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    return bool(found == files)


def _wait_for(base: Path, files: dict[str, list[int]], timeout_min: float) -> None:
    deadline = time.monotonic() + 60 * timeout_min
    while not _is_of(base, files):
        if time.monotonic() > deadline:
            raise CheckpointError(
                f"{base}: rank 0 did not finish it in {timeout_min:g} minutes. See its output, "
                "or raise runtime.timeout_min."
            )
        time.sleep(0.5)
