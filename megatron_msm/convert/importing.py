"""Hugging Face folder, or another tool's checkpoint -> Megatron checkpoint, tensor by tensor."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import ValidationError

from megatron_msm.convert.adapters.peft import open_peft
from megatron_msm.convert.comparing import not_finite_parts
from megatron_msm.convert.file_access import Scratch
from megatron_msm.convert.forward.import_check import check_meaning
from megatron_msm.convert.huggingface.files import TENSORS_FILE, copy_files, small_files
from megatron_msm.convert.import_sources import ImportSource, imported_state, open_hf_source
from megatron_msm.convert.megatron.external_checkpoints import ExternalSource, find_torch_dist
from megatron_msm.convert.megatron.extra_state import add_extra_state
from megatron_msm.convert.megatron.run_config import check_run_config
from megatron_msm.convert.megatron.writer import (
    CONTENT_METADATA,
    TensorToWrite,
    WrittenFile,
    split_into_files,
    write_file,
    write_metadata,
)
from megatron_msm.convert.targets import only_writer, refuse_to_delete_foreign_files
from megatron_msm.errors import CheckpointError, CheckpointWriteError
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    LATEST_FILE,
    STATE_FILE,
    CheckpointState,
    checkpoint_written_aside,
    iteration_folder,
    publish_checkpoint,
)
from megatron_msm.formats.files import FileRecord, write_json_atomic
from megatron_msm.formats.tokenizer_files import read_tokenizer_files
from megatron_msm.formats.vocabulary import check_tokenizer_fits
from megatron_msm.models.architecture import HfConfig
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.hf_config import read_hf_config
from megatron_msm.models.tensor_table import MappedTensor
from megatron_msm.progress import SILENT, Progress

logger = logging.getLogger(__name__)


def import_hf(
    hf_folder: Path,
    out: Path,
    *,
    force: bool = False,
    adapter: Path | None = None,
    check: bool = False,
    progress: Progress = SILENT,
) -> CheckpointState:
    """Write the model in `hf_folder` as iteration 0 of the checkpoint folder `out`.

    Tensors keep their dtype and bits. The folder's small files are carried along in `hf/`.

    Args:
        hf_folder: config.json, tokenizer, and safetensors (or `.bin`) weights.
        out: Created when missing. Nothing is visible in it before everything is written.
        force: Replace an import that is already there.
        adapter: A PEFT folder whose LoRA adapters are put beside the weights, to be trained on.
        check: Let Megatron and transformers compute with two layers first, and compare.
        progress: Told how many bytes are done.

    Raises:
        CheckpointError: The folder is incomplete, damaged, of an unsupported model, or `out` is
            taken or has no space.
    """
    _refuse_checkpoint(hf_folder)
    config = read_hf_config(hf_folder)
    mapped = table_for(config.shape).expand(config.shape)
    source = open_hf_source(hf_folder, config.shape, mapped)
    if adapter is not None:
        source = replace(source, peft=open_peft(adapter, mapped))
    return _import(source, hf_folder, config, mapped, out, force, check, progress)


def import_megatron(
    checkpoint: Path,
    hf_folder: Path,
    out: Path,
    *,
    force: bool = False,
    check: bool = False,
    progress: Progress = SILENT,
) -> CheckpointState:
    """Write a checkpoint of Megatron-LM, Megatron-Bridge or NeMo 2 as iteration 0 of `out`.

    Args:
        checkpoint: Its folder; the newest iteration is taken, optimizer state is left out.
        hf_folder: config.json and tokenizer of the same model, which those checkpoints do not have.
            Weights are not needed; where there are some, exports follow their dtypes and order.
        out: As for `import_hf`.
        force: Replace an import that is already there.
        check: Let Megatron and transformers compute with two layers first, and compare.
        progress: Told how many bytes are done.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged, not of that model, or `out` is taken
            or has no space.
    """
    config = read_hf_config(hf_folder)
    mapped = table_for(config.shape).expand(config.shape)
    folder = find_torch_dist(checkpoint)
    check_run_config(folder, config.shape)
    source = ExternalSource(folder, hf_folder, mapped)
    return _import(source, hf_folder, config, mapped, out, force, check, progress)


def _refuse_checkpoint(folder: Path) -> None:
    if (folder / "config.json").exists():
        return
    if (folder / LATEST_FILE).exists() or any(folder.glob("**/.metadata")):
        raise CheckpointError(
            f"{folder}: is a checkpoint, not a Hugging Face folder. If another tool wrote it, name "
            "the model's folder too: --hf HF_DIR."
        )


def _import(
    source: ImportSource,
    hf_folder: Path,
    config: HfConfig,
    mapped: Sequence[MappedTensor],
    out: Path,
    force: bool,
    check: bool,
    progress: Progress,
) -> CheckpointState:
    tokenizer = read_tokenizer_files(hf_folder)
    check_tokenizer_fits(tokenizer, config.shape.vocab_size)
    carried = small_files(hf_folder)
    _check_target(out, force=force)
    remarks = check_meaning(hf_folder, config.shape, source) if check else ()
    mapped = [*mapped, *source.adapter_tensors]
    files = split_into_files(_tensors_to_write(mapped, source))
    total_bytes = sum(tensor.num_bytes for tensors in files for tensor in tensors)
    check_disk_space(out, total_bytes)
    with (
        write_errors_explained(out),
        only_writer(out.resolve()),
        checkpoint_written_aside(out, 0) as tmp,
        ThreadPoolExecutor(1) as thread,
    ):
        lineage_entry = thread.submit(source.lineage_entry)
        progress.start("writing tensors", total_bytes)
        written = [
            _write_numbered(tmp, number, tensors, source, progress)
            for number, tensors in enumerate(files)
        ]
        write_metadata(tmp, list(zip(files, written, strict=True)), content=CONTENT_METADATA)
        add_extra_state(tmp, mapped)
        copy_files(hf_folder, carried, tmp / HF_FOLDER)
        write_json_atomic(tmp / HF_FOLDER / TENSORS_FILE, source.tensor_list())
        with progress.waiting("hashing what is imported"):
            origin = lineage_entry.result()
        state = imported_state(config, tokenizer, origin, remarks=remarks)
        state = state.model_copy(update={"adapter": source.adapter})
        known = {file.name: file.record for file in written}
        return publish_checkpoint(tmp, out, state, known_files=known)


def check_disk_space(out: Path, num_bytes: int) -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        CheckpointError: `out` cannot be made, or its disk has less space than `num_bytes`.
    """
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise CheckpointError(
            f"{out}: {existing} is not a folder that may be written into. Choose another one."
        )
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise CheckpointError(
            f"{out}: {num_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free. "
            "Make room, or choose another disk."
        )


@contextlib.contextmanager
def write_errors_explained(out: Path) -> Iterator[None]:
    """Say what to do when the disk is full after all, or goes away.

    Raises:
        CheckpointWriteError: In the place of the system's error.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointWriteError(
            f"{out}: the conversion failed ({error}). Nothing half-made is left. Make room or "
            "choose another disk, then run the same command again."
        ) from error


def _check_target(out: Path, *, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: is a file. Name a folder to write the checkpoint into.")
    if not force and ((out / LATEST_FILE).exists() or any(out.glob("iter_*"))):
        raise CheckpointError(
            f"{out}: already holds a checkpoint. Choose another folder, or use --force."
        )
    if any(path.name != "iter_0000000" for path in out.glob("iter_*")):
        raise CheckpointError(f"{out}: holds checkpoints of a training run. Choose another folder.")
    earlier = iteration_folder(out, 0)
    if earlier.is_dir():
        files = _written_files(earlier / STATE_FILE)
        refuse_to_delete_foreign_files(earlier, files, itself=STATE_FILE)


def _written_files(path: Path) -> Mapping[str, FileRecord]:
    try:
        return CheckpointState.model_validate_json(path.read_bytes()).files
    except (OSError, ValidationError):
        return {}  # it does not say what was written, so nothing was


def _tensors_to_write(mapped: Sequence[MappedTensor], source: ImportSource) -> list[TensorToWrite]:
    # Experts are shards of one tensor; of different dtypes they are promoted to one.
    dtypes: dict[str, torch.dtype] = {}
    for tensor in mapped:
        found = source.dtype_of(tensor)
        dtypes[tensor.key] = torch.promote_types(dtypes.get(tensor.key, found), found)
    return [TensorToWrite(tensor, dtypes[tensor.key]) for tensor in mapped]


def _write_numbered(
    folder: Path,
    number: int,
    tensors: Sequence[TensorToWrite],
    source: ImportSource,
    progress: Progress,
) -> WrittenFile:
    scratch = Scratch()

    def load(planned: TensorToWrite) -> torch.Tensor:
        mapped = planned.mapped
        tensor = scratch.tensor(mapped.lengths, planned.dtype)
        source.read_into(mapped, tensor.view(mapped.size))
        for name in not_finite_parts(mapped, tensor.view(mapped.size)):
            logger.warning("tensor %r has NaN or infinity, and is imported as it is", name)
        progress.advance(planned.num_bytes)
        return tensor

    return write_file(folder, number, tensors, load)
