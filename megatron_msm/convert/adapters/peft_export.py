"""The adapters of a checkpoint as a folder that PEFT loads, written without peft."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from megatron_msm.convert.adapters.base_model import named_base, recorded_base
from megatron_msm.convert.adapters.peft_config import CONFIG_FILE, WEIGHTS_FILE, peft_config
from megatron_msm.convert.matching import check_megatron_tensors
from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.convert.targets import folder_to_replace, only_writer
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    AdapterRecord,
    read_checkpoint_state,
    resolve_checkpoint,
    verify_checkpoint_hashes,
)
from megatron_msm.formats.files import folder_written_aside, write_json_atomic
from megatron_msm.models.adapter_table import mapped_adapters
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.hf_config import read_model_shape


def export_adapter(
    checkpoint: Path, out: Path, *, base: str | None = None, force: bool = False
) -> AdapterRecord:
    """Write the adapters of a checkpoint as a PEFT folder.

    Args:
        checkpoint: A checkpoint folder (its newest iteration is taken) or an iteration folder.
        out: Appears whole or not at all.
        base: Folder or hub's name of the model that the adapters belong to, for those who load
            them. None: the hub's name and commit, where it was imported from a hub's cache.
        force: Replace an earlier adapter folder.

    Raises:
        CheckpointError: The checkpoint has no adapters or is damaged, `out` is taken, or `base` is
            another model.
        ConfigError: Which base it is is not known.
    """
    folder = resolve_checkpoint(checkpoint)
    state = read_checkpoint_state(folder)
    if state.adapter is None:
        raise CheckpointError(
            f"{folder}: has no LoRA adapters; all its weights were trained. Export it without "
            "--adapter."
        )
    out = folder_to_replace(out)
    _check_target(out, force=force)
    verify_checkpoint_hashes(folder, state)
    shape = read_model_shape(folder / HF_FOLDER)
    mapped = table_for(shape).expand(shape)
    adapters = mapped_adapters(mapped, state.adapter)
    reader = MegatronCheckpoint(folder)
    check_megatron_tensors(reader, shape, mapped, adapters)
    found = (
        recorded_base(folder, state) if base is None else named_base(base, reader, shape, mapped)
    )
    tensors: dict[str, torch.Tensor] = {}
    for one in adapters:
        for tensor in one.tensors:
            parts = reader.read_parts(tensor)
            tensors |= {
                name: part.clone() for name, part in zip(tensor.hf_names, parts, strict=True)
            }
    config = peft_config(
        state.adapter,
        modules=sorted({name for one in adapters for name in one.projections}),
        base=found.name,
        revision=found.revision,
    )
    with only_writer(out), folder_written_aside(out) as tmp:
        save_file(tensors, tmp / WEIGHTS_FILE, metadata={"format": "pt"})
        write_json_atomic(tmp / CONFIG_FILE, config)
    return state.adapter


def _check_target(out: Path, *, force: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / CONFIG_FILE).exists():
        raise CheckpointError(f"{out}: is taken by something else. Choose another folder.")
    if not force:
        raise CheckpointError(f"{out}: already holds an adapter. Use --force to replace it.")
