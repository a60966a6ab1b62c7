"""An adapter that PEFT saved: a folder of `adapter_config.json` and one safetensors file.

Read without peft, which is not needed to train. Only what is trained here can be
exchanged: plain or rank-stabilised LoRA on whole fused projections. q without k and v, DoRA, biases
or fully trained modules are refused, by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from megatron_msm.config.lora import LoraTarget
from megatron_msm.convert.adapters.peft_config import WEIGHTS_FILE, read_peft_config
from megatron_msm.convert.huggingface.files import resolve_inside
from megatron_msm.convert.huggingface.weights import HfTensorInfo, SafetensorsWeights
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import AdapterRecord
from megatron_msm.formats.files import sha256_of_file
from megatron_msm.models.adapter_table import mapped_adapters
from megatron_msm.models.tensor_table import MappedTensor, hf_tensors


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter folder that fits a model."""

    record: AdapterRecord
    tensors: tuple[MappedTensor, ...]
    """Its matrices in the Megatron checkpoint."""
    weights: SafetensorsWeights
    sha256: str
    """Hash of the weights file."""


def open_peft(folder: Path, mapped: Sequence[MappedTensor]) -> PeftAdapter:
    """Open a PEFT folder and check that it is an adapter of the model.

    Args:
        folder: Written by peft's `save_pretrained`, or by `export_adapter`.
        mapped: The model's table, expanded.

    Raises:
        CheckpointError: It is incomplete, of another model, or more than plain LoRA.
    """
    settings = read_peft_config(folder)
    path = resolve_inside(folder, WEIGHTS_FILE)
    if not path.exists():
        raise CheckpointError(
            f"{folder}: {WEIGHTS_FILE} is missing. Save the adapter with safe_serialization=True."
        )
    weights = SafetensorsWeights([path])
    targets = _targets(folder, weights.tensors, mapped)
    record = AdapterRecord(
        rank=settings.rank,
        alpha=settings.alpha,
        targets=targets,
        rank_stabilized=settings.rank_stabilized,
    )
    tensors = tuple(t for one in mapped_adapters(mapped, record) for t in one.tensors)
    _check_tensors(folder, weights.tensors, dict(hf_tensors(tensors)))
    return PeftAdapter(record, tensors, weights, sha256_of_file(path))


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
