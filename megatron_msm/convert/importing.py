"""Hugging Face folder -> Megatron checkpoint, one tensor at a time."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch

from megatron_msm.convert.hf_files import TENSORS_FILE, copy_files, small_files
from megatron_msm.convert.hf_weights import HfWeights, open_hf_weights
from megatron_msm.convert.jobs import run_jobs
from megatron_msm.convert.matching import check_hf_weights
from megatron_msm.convert.megatron_writer import (
    TensorToWrite,
    WrittenFile,
    split_into_files,
    write_file,
    write_metadata,
)
from megatron_msm.convert.peft import PeftAdapter, open_peft
from megatron_msm.convert.progress import NoProgress, Progress
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    LATEST_FILE,
    CheckpointState,
    LineageEntry,
    checkpoint_written_aside,
    publish_checkpoint,
)
from megatron_msm.formats.files import sha256_of_file, sha256_of_json, write_json_atomic
from megatron_msm.formats.tokenizer_files import read_tokenizer_files
from megatron_msm.models.architecture import read_model_shape
from megatron_msm.models.registry import table_for
from megatron_msm.models.tensor_table import MappedTensor
from megatron_msm.runtime.versions import installed_versions

logger = logging.getLogger(__name__)

# Every layer has a key of its own, so that layers may differ and any pipeline layout can load them.
CONTENT_METADATA = {"non_homogeneous_layers": True}


@dataclass(frozen=True)
class _FileJob:
    """One file of tensors to write."""

    sources: Sequence[HfWeights]
    target: Path
    number: int
    tensors: Sequence[TensorToWrite]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors)

    def read(self, name: str) -> torch.Tensor:
        """Read a tensor from whichever source has it."""
        source = next(source for source in self.sources if name in source.tensors)
        return source.read(name)


def import_hf(
    hf_folder: Path,
    out: Path,
    *,
    force: bool = False,
    workers: int = 1,
    adapter: Path | None = None,
    progress: Progress | None = None,
) -> CheckpointState:
    """Write the model in `hf_folder` as iteration 0 of the checkpoint folder `out`.

    Tensors keep their dtype and bits. The folder's small files are carried along in `hf/`.

    Args:
        hf_folder: config.json, tokenizer, and safetensors (or `.bin`) weights.
        out: Created when missing. Nothing is visible in it before everything is written.
        force: Replace an import that is already there.
        workers: Processes that share the files; the result is the same for any number.
        adapter: A PEFT folder whose LoRA adapters are put beside the weights, to be trained on.
        progress: Told how many bytes are done.

    Raises:
        CheckpointError: The folder is incomplete, damaged, of an unsupported model, or `out` is
            taken or has no space.
    """
    progress = progress or NoProgress()
    shape = read_model_shape(hf_folder)
    tokenizer = read_tokenizer_files(hf_folder)
    weights = open_hf_weights(hf_folder)
    mapped = table_for(shape).expand(shape)
    left_out = check_hf_weights(hf_folder, weights, shape, mapped)
    if left_out:
        logger.warning("%s: left out %d buffers computed from the config", hf_folder, len(left_out))
    carried = small_files(hf_folder)
    peft = None if adapter is None else open_peft(adapter, mapped)
    planned = _tensors_to_write(mapped, weights)
    if peft is not None:
        planned += _tensors_to_write(peft.tensors, peft.weights)
    files = split_into_files(planned)
    sources: tuple[HfWeights, ...] = (weights,) if peft is None else (weights, peft.weights)
    _check_target(out, force=force)
    total_bytes = sum(tensor.num_bytes for tensors in files for tensor in tensors)
    check_disk_space(out, total_bytes)
    with checkpoint_written_aside(out, 0) as tmp, ThreadPoolExecutor(1) as thread:
        hashes = thread.submit(_hash_files, weights.files)
        progress.start("writing tensors", total_bytes)
        jobs = [_FileJob(sources, tmp, number, tensors) for number, tensors in enumerate(files)]
        written = run_jobs(
            _write_job,
            jobs,
            workers=workers,
            num_bytes=lambda job: job.num_bytes,
            progress=progress,
        )
        write_metadata(tmp, list(zip(files, written, strict=True)), content=CONTENT_METADATA)
        copy_files(hf_folder, carried, tmp / HF_FOLDER)
        write_json_atomic(tmp / HF_FOLDER / TENSORS_FILE, _tensor_list(weights, left_out))
        state = CheckpointState(
            iteration=0,
            phase="import",
            phase_complete=True,
            architecture=shape.model_type,
            model_sha256=shape.sha256,
            tokenizer_sha256=tokenizer.tokenizer_sha256,
            chat_template_sha256=tokenizer.chat_template_sha256,
            adapter=peft and peft.record,
            lineage=(_lineage_entry(hf_folder, hashes.result(), left_out, peft),),
            versions=installed_versions(),
        )
        known = {file.name: file.record for file in written}
        return publish_checkpoint(tmp, out, state, known_files=known)


def check_disk_space(out: Path, num_bytes: int) -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        CheckpointError: The disk of `out` has less space than `num_bytes`.
    """
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise CheckpointError(
            f"{out}: {num_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free. "
            "Make room, or choose another disk."
        )


def _check_target(out: Path, *, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: is a file. Name a folder to write the checkpoint into.")
    if not force and ((out / LATEST_FILE).exists() or any(out.glob("iter_*"))):
        raise CheckpointError(
            f"{out}: already holds a checkpoint. Choose another folder, or use --force."
        )
    if any(path.name != "iter_0000000" for path in out.glob("iter_*")):
        raise CheckpointError(f"{out}: holds checkpoints of a training run. Choose another folder.")


def _tensors_to_write(mapped: Sequence[MappedTensor], weights: HfWeights) -> list[TensorToWrite]:
    # Parts of different dtypes are promoted to one that holds all exactly; so are experts, which
    # are shards of one tensor.
    dtypes: dict[str, torch.dtype] = {}
    for tensor in mapped:
        found = [weights.tensors[name].dtype for name in tensor.hf_names]
        known = [dtypes[tensor.key]] if tensor.key in dtypes else []
        dtypes[tensor.key] = reduce(torch.promote_types, known + found)
    return [TensorToWrite(tensor, dtypes[tensor.key]) for tensor in mapped]


def _write_job(job: _FileJob, progress: Progress) -> WrittenFile:
    def load(planned: TensorToWrite) -> torch.Tensor:
        mapped = planned.mapped
        fused = mapped.fuse([job.read(name) for name in mapped.hf_names])
        progress.advance(planned.num_bytes)
        return fused.to(planned.dtype).reshape(mapped.lengths)

    return write_file(job.target, job.number, job.tensors, load)


def _tensor_list(weights: HfWeights, left_out: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return names, dtypes and sizes in the order of the files, from which export restores them."""
    return {
        name: {"dtype": str(info.dtype).removeprefix("torch."), "shape": list(info.size)}
        for name, info in weights.tensors.items()
        if name not in left_out
    }


def _hash_files(files: Sequence[Path]) -> dict[str, str]:
    return {file.name: sha256_of_file(file) for file in files}


def _lineage_entry(
    hf_folder: Path,
    hashes: Mapping[str, str],
    left_out: Sequence[str],
    peft: PeftAdapter | None,
) -> LineageEntry:
    config = sha256_of_file(hf_folder / "config.json")
    adapter = {} if peft is None else {"adapter_sha256": peft.sha256}
    return LineageEntry(
        stage="import",
        identity=sha256_of_json([dict(hashes), config, *adapter.values()]),
        details={
            "source": hf_folder.resolve().name,
            "weights_sha256": dict(hashes),
            "config_sha256": config,
            "left_out_buffers": list(left_out),
            **adapter,
        },
    )
