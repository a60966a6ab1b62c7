"""Megatron checkpoint -> Hugging Face folder, one tensor at a time."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from megatron_msm.convert.adapters.merging import open_checkpoint
from megatron_msm.convert.file_access import Scratch
from megatron_msm.convert.huggingface.files import TENSORS_FILE
from megatron_msm.convert.huggingface.model_card import BASE_CARD_FILE, CARD_FILE, model_card
from megatron_msm.convert.huggingface.safetensors_writer import (
    SafetensorsFile,
    TensorLayout,
    parse_size,
    shard_name,
    split_into_shards,
    write_index,
)
from megatron_msm.convert.huggingface.weights import SafetensorsWeights
from megatron_msm.convert.importing import check_disk_space, write_errors_explained
from megatron_msm.convert.matching import check_megatron_tensors, tied_copies
from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.convert.targets import (
    folder_to_replace,
    only_writer,
    refuse_to_delete_foreign_files,
)
from megatron_msm.errors import CheckpointError, ConfigError
from megatron_msm.formats.checkpoint_folder import (
    EXPORT_FILE,
    HF_FOLDER,
    RUN_FILE,
    WEIGHTS_SUFFIX,
    CheckpointState,
    LineageEntry,
    file_records,
    read_checkpoint_state,
    resolve_checkpoint,
    verify_checkpoint_hashes,
)
from megatron_msm.formats.files import FileRecord, folder_written_aside, write_json_atomic
from megatron_msm.formats.json_types import JsonObject
from megatron_msm.formats.tokenizer_files import read_tokenizer_files
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.tensor_table import MappedTensor, hf_tensors
from megatron_msm.progress import SILENT, Progress
from megatron_msm.runtime.versions import installed_versions

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_SHORT_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class ExportManifest(BaseModel):
    """The content of msm_export.json: what the folder is and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = 1
    architecture: str
    phase: str
    iteration: int
    checkpoint_identity: str
    """`CheckpointState.identity` of the checkpoint that was exported."""
    model_sha256: str
    tokenizer_sha256: str
    chat_template_sha256: str | None
    lineage: tuple[LineageEntry, ...]
    dtype: str | None
    """dtype of every tensor when one was asked for; None when each has its source's."""
    versions: dict[str, str]
    files: dict[str, FileRecord]
    """Every other file of the folder."""


@dataclass(frozen=True)
class _WeightFile:
    """One weight file to write."""

    checkpoint: MegatronCheckpoint
    path: Path
    layouts: Mapping[str, TensorLayout]
    sources: Sequence[MappedTensor]
    """What its tensors are taken from."""
    copies: Mapping[str, str]
    """Second names of tied tensors: {original: copy}."""
    check: bool


def export_hf(
    checkpoint: Path,
    out: Path,
    *,
    max_shard_size: str = "5GB",
    dtype: str | None = None,
    force: bool = False,
    check: bool = True,
    progress: Progress = SILENT,
) -> ExportManifest:
    """Write a checkpoint as a complete Hugging Face folder.

    Every tensor has the name, order and dtype of the folder that was imported; the small files are
    its bytes, but for the model card of a trained model. Optimizer state and rows that pad the
    vocabulary are left out. LoRA adapters are merged into the weights.

    Args:
        checkpoint: A checkpoint folder (its newest iteration is taken) or an iteration folder.
        out: Appears whole or not at all.
        max_shard_size: A single model.safetensors is written when it is not larger than this.
        dtype: Convert every tensor to it (`bfloat16`, `float32`, `float16`), and say so in
            config.json.
        force: Replace an earlier export.
        check: Compare the checkpoint's files with their SHA-256, and read every tensor back when
            it is written, bit for bit.
        progress: Told how many bytes are done.

    Raises:
        CheckpointError: The checkpoint is damaged or does not match its own model and tokenizer, or
            `out` is taken, has no space, or does not hold what was written.
        CheckpointWriteError: The disk failed meanwhile.
        ConfigError: An option is wrong.
    """
    shard_bytes = parse_size(max_shard_size)
    dtype = None if dtype is None else _dtype_name(dtype)
    out = folder_to_replace(out)
    _check_target(out, force=force)
    folder = resolve_checkpoint(checkpoint)
    state = read_checkpoint_state(folder)
    _verify_files(folder, state, weights=False)
    shape = _check_hf_files(folder / HF_FOLDER, state)
    mapped = table_for(shape).expand(shape)
    megatron, adapters = open_checkpoint(folder, mapped, state.adapter)
    check_megatron_tensors(megatron, shape, mapped, adapters)
    layouts = _layouts(folder / HF_FOLDER / TENSORS_FILE, shape, mapped, dtype)
    num_bytes = sum(layout.num_bytes for layout in layouts.values())
    check_disk_space(out, num_bytes)
    shards = split_into_shards(layouts.values(), shard_bytes)
    with (
        write_errors_explained(out),
        only_writer(out),
        folder_written_aside(out) as tmp,
        ThreadPoolExecutor(1) as thread,
    ):
        verified = thread.submit(_verify_files, folder, state, weights=True) if check else None
        planned = _weight_files(megatron, tmp, shards, mapped, tied_copies(shape), check=check)
        progress.start("writing tensors", num_bytes)
        records = {file.path.name: _write_weights(file, progress) for file in planned}
        if verified is not None:
            with progress.waiting("comparing the checkpoint's files with their SHA-256"):
                verified.result()
        write_index(tmp, shards)
        _copy_small_files(folder, state, tmp, dtype)
        manifest = _manifest(state, dtype, file_records(tmp, records))
        write_json_atomic(tmp / EXPORT_FILE, manifest.model_dump(mode="json"))
    return manifest


def _weight_files(
    checkpoint: MegatronCheckpoint,
    target: Path,
    shards: Sequence[Sequence[TensorLayout]],
    mapped: Sequence[MappedTensor],
    copies: Mapping[str, str],
    *,
    check: bool,
) -> list[_WeightFile]:
    """Plan every weight file; a fused tensor whose parts lie in two is read for both."""
    source_of = {name: tensor for tensor in mapped for name in tensor.hf_names}
    source_of |= {copy: source_of[original] for copy, original in copies.items()}
    return [
        _WeightFile(
            checkpoint=checkpoint,
            path=target / shard_name(index, len(shards)),
            layouts={layout.name: layout for layout in shard},
            # A dict keeps the first of each, in order.
            sources=list({id(source_of[t.name]): source_of[t.name] for t in shard}.values()),
            copies={original: copy for copy, original in copies.items()},
            check=check,
        )
        for index, shard in enumerate(shards)
    ]


def _write_weights(planned: _WeightFile, progress: Progress) -> FileRecord:
    layouts = list(planned.layouts.values())
    with SafetensorsFile(planned.path, layouts, check=planned.check) as file:
        for name, tensor in _tensors_of(planned):
            file.write(name, tensor)
            progress.advance(tensor.nbytes)
        record = file.record()
    if planned.check:
        # As an importer would read the table of contents.
        written = SafetensorsWeights([planned.path]).tensors
        found = [TensorLayout(name, info.dtype, info.size) for name, info in written.items()]
        assert found == layouts, f"{planned.path.name}: its header is not what was planned"
    return record


def _tensors_of(planned: _WeightFile) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and elements of every tensor of the file, in the order of the checkpoint.

    A tensor is a view of memory that the next one overwrites.
    """
    scratch = Scratch()
    for source in planned.sources:
        fused = scratch.tensor(source.size, planned.checkpoint.tensors[source.key].dtype)
        planned.checkpoint.read_mapped(source, fused)
        for name, view in zip(source.hf_names, source.views(fused), strict=True):
            for target in (name, planned.copies.get(name)):
                if target is not None and target in planned.layouts:
                    yield target, _cast(view, planned.layouts[target])


def _dtype_name(text: str) -> str:
    name = _SHORT_NAMES.get(text, text)
    if name not in DTYPES:
        raise ConfigError(f"--dtype: {text!r} is not one of {', '.join(DTYPES)}.")
    return name


def _check_target(out: Path, *, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: is a file. Name a folder to write the model into.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / EXPORT_FILE).exists():
        raise CheckpointError(
            f"{out}: is not empty and not an earlier export ({EXPORT_FILE} is missing). "
            "Choose another folder."
        )
    if not force:
        raise CheckpointError(f"{out}: already holds an export. Use --force to replace it.")
    refuse_to_delete_foreign_files(out, _written_files(out / EXPORT_FILE), itself=EXPORT_FILE)


def _written_files(path: Path) -> Mapping[str, FileRecord]:
    try:
        return ExportManifest.model_validate_json(path.read_bytes()).files
    except (OSError, ValidationError):
        return {}  # it does not say what was written, so nothing was


def _verify_files(folder: Path, state: CheckpointState, *, weights: bool) -> None:
    """Compare a checkpoint's large files, or all others, with their recorded hashes."""
    records = {
        name: record
        for name, record in state.files.items()
        if name.endswith(WEIGHTS_SUFFIX) == weights
    }
    verify_checkpoint_hashes(folder, state.model_copy(update={"files": records}))


def _check_hf_files(hf_folder: Path, state: CheckpointState) -> ModelShape:
    """Check that the carried files are those that the checkpoint was written with."""
    shape = read_model_shape(hf_folder)
    tokenizer = read_tokenizer_files(hf_folder)
    for what, found, recorded in (
        ("model", shape.sha256, state.model_sha256),
        ("tokenizer", tokenizer.tokenizer_sha256, state.tokenizer_sha256),
        ("chat template", tokenizer.chat_template_sha256, state.chat_template_sha256),
    ):
        if found != recorded:
            raise CheckpointError(
                f"{hf_folder}: the {what} (sha256 {found}) is not the one the checkpoint was "
                f"trained with ({recorded}). Restore the folder's files."
            )
    return shape


def _layouts(
    path: Path, shape: ModelShape, mapped: tuple[MappedTensor, ...], dtype: str | None
) -> dict[str, TensorLayout]:
    """Read hf/tensors.json: names, dtypes and order of the export."""
    try:
        listed: Mapping[str, Mapping[str, str]] = orjson.loads(path.read_bytes())
        dtypes = {name: DTYPES[dtype or entry["dtype"]] for name, entry in listed.items()}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a list of tensors ({type(error).__name__}: {error}). "
            "The checkpoint is damaged; use another iteration."
        ) from None
    sizes = dict(hf_tensors(mapped))
    copies = tied_copies(shape)
    wanted = sizes | {copy: sizes[original] for copy, original in copies.items() if copy in dtypes}
    if dtypes.keys() != wanted.keys():
        names = ", ".join(sorted(dtypes.keys() ^ wanted.keys())[:8])
        raise CheckpointError(
            f"{path}: does not list the tensors of {shape.model_type}: {names}. "
            "The checkpoint is damaged; use another iteration."
        )
    return {name: TensorLayout(name, found, wanted[name]) for name, found in dtypes.items()}


def _cast(tensor: torch.Tensor, layout: TensorLayout) -> torch.Tensor:
    cast = tensor.to(layout.dtype)
    if layout.dtype == torch.float16 and not torch.equal(cast.isfinite(), tensor.isfinite()):
        raise CheckpointError(
            f"tensor {layout.name!r} has values beyond float16. Use --dtype bfloat16."
        )
    return cast


def _copy_small_files(
    folder: Path, state: CheckpointState, target: Path, dtype: str | None
) -> None:
    """Copy what import carried along; config.json names the dtype when one was asked for."""
    prefix = f"{HF_FOLDER}/"
    for name in state.files:
        relative = name.removeprefix(prefix)
        if not name.startswith(prefix) or relative == TENSORS_FILE:
            continue
        content = (folder / name).read_bytes()
        if relative == "config.json" and dtype is not None:
            config: JsonObject = orjson.loads(content)
            names = [name for name in ("dtype", "torch_dtype") if name in config] or ["torch_dtype"]
            content = (
                orjson.dumps(config | dict.fromkeys(names, dtype), option=orjson.OPT_INDENT_2)
                + b"\n"
            )
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        (target / relative).write_bytes(content)
    if len(state.lineage) > 1:
        _write_card(folder, state, target)


def _write_card(folder: Path, state: CheckpointState, target: Path) -> None:
    """Write the trained model's card, and keep the base's and the run's settings beside it."""
    card, base_card, run = (target / CARD_FILE, target / BASE_CARD_FILE, folder / RUN_FILE)
    base_text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else None
    if card.exists() and not base_card.exists():
        card.rename(base_card)
    run_yaml = run.read_text(encoding="utf-8") if run.exists() else None
    card.write_text(model_card(state, base_text, run_yaml), encoding="utf-8")
    if run_yaml is not None:
        (target / RUN_FILE).write_text(run_yaml, encoding="utf-8")


def _manifest(
    state: CheckpointState, dtype: str | None, files: dict[str, FileRecord]
) -> ExportManifest:
    return ExportManifest(
        architecture=state.architecture,
        phase=state.phase,
        iteration=state.iteration,
        checkpoint_identity=state.identity,
        model_sha256=state.model_sha256,
        tokenizer_sha256=state.tokenizer_sha256,
        chat_template_sha256=state.chat_template_sha256,
        lineage=state.lineage,
        dtype=dtype,
        versions=installed_versions(),
        files=files,
    )
