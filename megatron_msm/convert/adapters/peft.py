"""LoRA adapters in PEFT's format: a folder of `adapter_config.json` and one safetensors file.

Read and written without peft, which is not needed to train. Only what is trained here can be
exchanged: plain LoRA on whole fused projections. q without k and v, DoRA, rank-stabilised scaling,
biases or fully trained modules are refused, by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import orjson
import torch
from safetensors.torch import save_file

from megatron_msm.config.lora import LoraTarget
from megatron_msm.convert.huggingface.files import resolve_inside
from megatron_msm.convert.huggingface.weights import HfTensorInfo, SafetensorsWeights
from megatron_msm.convert.matching import check_adapter_tensors
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
from megatron_msm.formats.files import folder_written_aside, sha256_of_file, write_json_atomic
from megatron_msm.models.adapter_table import MappedAdapter, mapped_adapters
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.tensor_table import MappedTensor, hf_tensors

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# Fields of PEFT's LoraConfig (0.21, tuners/lora/config.py) that change what an adapter computes,
# with the only values that are taken.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none",),
    "lora_bias": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
    "layers_to_transform": (None, []),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "alora_invocation_tokens": (None, []),
}


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter folder that fits a model."""

    record: AdapterRecord
    tensors: tuple[MappedTensor, ...]
    """Its matrices in the Megatron checkpoint."""
    weights: SafetensorsWeights
    sha256: str
    """Hash of the weights file."""


def export_adapter(checkpoint: Path, out: Path, *, force: bool = False) -> AdapterRecord:
    """Write the adapters of a checkpoint as a PEFT folder.

    Args:
        checkpoint: A checkpoint folder (its newest iteration is taken) or an iteration folder.
        out: Appears whole or not at all.
        force: Replace an earlier adapter folder.

    Raises:
        CheckpointError: The checkpoint has no adapters or is damaged, or `out` is taken.
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
    adapters = mapped_adapters(table_for(shape).expand(shape), state.adapter)
    reader = MegatronCheckpoint(folder)
    check_adapter_tensors(reader, adapters)
    tensors: dict[str, torch.Tensor] = {}
    for one in adapters:
        for tensor in one.tensors:
            parts = reader.read_parts(tensor)
            tensors |= {
                name: part.clone() for name, part in zip(tensor.hf_names, parts, strict=True)
            }
    base = next(entry.details.get("source") for entry in state.lineage)
    with only_writer(out), folder_written_aside(out) as tmp:
        save_file(tensors, tmp / WEIGHTS_FILE, metadata={"format": "pt"})
        write_json_atomic(tmp / CONFIG_FILE, _peft_config(state.adapter, adapters, base))
    return state.adapter


def _check_target(out: Path, *, force: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / CONFIG_FILE).exists():
        raise CheckpointError(f"{out}: is taken by something else. Choose another folder.")
    if not force:
        raise CheckpointError(f"{out}: already holds an adapter. Use --force to replace it.")


def _peft_config(
    adapter: AdapterRecord, adapters: Sequence[MappedAdapter], base: str | None
) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name for one in adapters for name in one.projections}),
        "inference_mode": True,
    }


def open_peft(folder: Path, mapped: Sequence[MappedTensor]) -> PeftAdapter:
    """Open a PEFT folder and check that it is an adapter of the model.

    Args:
        folder: Written by peft's `save_pretrained`, or by `export_adapter`.
        mapped: The model's table, expanded.

    Raises:
        CheckpointError: It is incomplete, of another model, or more than plain LoRA.
    """
    config = _read_config(folder)
    path = resolve_inside(folder, WEIGHTS_FILE)
    if not path.exists():
        raise CheckpointError(
            f"{folder}: {WEIGHTS_FILE} is missing. Save the adapter with safe_serialization=True."
        )
    weights = SafetensorsWeights([path])
    targets = _targets(folder, weights.tensors, mapped)
    record = AdapterRecord(rank=config["r"], alpha=config["lora_alpha"], targets=targets)
    tensors = tuple(t for one in mapped_adapters(mapped, record) for t in one.tensors)
    _check_tensors(folder, weights.tensors, dict(hf_tensors(tensors)))
    return PeftAdapter(record, tensors, weights, sha256_of_file(path))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config: dict[str, Any] = orjson.loads(path.read_bytes())
        refused = [
            f"{field}={config[field]!r}"
            for field, plain in _PLAIN.items()
            if field in config and config[field] not in plain
        ]
        rank, alpha = config["r"], config["lora_alpha"]
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found. Give a folder that PEFT saved.") from None
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a LoRA configuration ({error!r}).") from None
    if refused or not isinstance(rank, int) or rank < 1 or not alpha > 0:
        raise CheckpointError(
            f"{path}: {', '.join(refused) or f'r={rank!r}, lora_alpha={alpha!r}'} cannot be "
            "taken over. Merge the adapter with PEFT (merge_and_unload) and import the result."
        )
    return config


def _targets(
    folder: Path, found: Mapping[str, HfTensorInfo], mapped: Sequence[MappedTensor]
) -> tuple[LoraTarget, ...]:
    """Return Megatron's projections of which the folder has all parts."""
    present: list[LoraTarget] = []
    known = {name.split(".")[-3] for name in found}
    for target in get_args(LoraTarget):
        suffix = f".{target}.weight"
        names = next((t.hf_names for t in mapped if t.key.endswith(suffix)), ())
        parts = [name.split(".")[-2] for name in names]
        missing = [part for part in parts if part not in known]
        if parts and not missing:
            present.append(target)
        elif len(missing) < len(parts):
            raise CheckpointError(
                f"{folder}: has adapters on some of {parts} but not on {missing}. They are one "
                "fused projection here, so all or none must have one; merge the adapter with PEFT "
                "(merge_and_unload) and import the result."
            )
    if not present:
        raise CheckpointError(f"{folder}: has no adapter on a projection of this model.")
    return tuple(present)


def _check_tensors(
    folder: Path, found: Mapping[str, HfTensorInfo], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    names = sorted(found.keys() ^ wanted.keys())
    if names:
        raise CheckpointError(
            f"{folder}: missing or not of the model: {', '.join(names[:8])} ({len(names)} in all). "
            "Give the adapter of this base model."
        )
    for name, size in wanted.items():
        if found[name].size != size:
            raise CheckpointError(
                f"{folder}: tensor {name!r} has size {found[name].size}, the model and r ask for "
                f"{size}. Give the adapter of this base model."
            )
