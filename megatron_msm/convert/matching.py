"""Whether the tensors of a folder or a checkpoint are exactly those of a model's table."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from megatron_msm.convert.comparing import same_bits
from megatron_msm.convert.huggingface.weights import HfWeights, read_tensor
from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.errors import CheckpointError
from megatron_msm.models.adapter_table import MappedAdapter
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.tensor_table import MappedTensor, Size, hf_tensors

_NAMES_SHOWN = 8
# Keys of megatron-core's optimizers, alone or chained (optimizer/optimizer.py, ChainedOptimizer).
_OPTIMIZER_KEY = re.compile(r"(chained_\d+\.)?optimizer\.")


def check_hf_weights(
    folder: Path, weights: HfWeights, shape: ModelShape, mapped: Sequence[MappedTensor]
) -> tuple[str, ...]:
    """Check that a folder holds every tensor of the model, in its size, and nothing unknown.

    Returns:
        The names that are no weights and are left out: buffers computed from the config.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another size; all are listed.
    """
    table = table_for(shape)
    expected = dict(hf_tensors(mapped))
    allowed_copies = tied_copies(shape)
    buffers = table.buffer_names(shape)
    missing = [name for name in expected if name not in weights.tensors]
    known = expected.keys() | allowed_copies.keys() | buffers
    unexpected = [name for name in weights.tensors if name not in known]
    if missing or unexpected:
        raise CheckpointError(
            f"{folder}: the weights are not those of config.json ({shape.model_type}, "
            f"{shape.num_layers} layers)."
            + listed("Missing", missing)
            + listed("Not in the mapping", unexpected)
            + _cause(unexpected)
        )
    for name, size in expected.items():
        _check_size(weights.tensors[name].file, name, weights.tensors[name].size, size)
    for copy, original in allowed_copies.items():
        _check_tied_copy(weights, copy, original)
    return tuple(name for name in weights.tensors if name in buffers)


def _cause(unexpected: Sequence[str]) -> str:
    """Say what is known to lead to such names."""
    if any(name.endswith((".experts.gate_up_proj", ".experts.down_proj")) for name in unexpected):
        return (
            " The experts are fused, as transformers 5 has them in memory: load the model with it "
            "and write it with save_pretrained, which takes them apart."
        )
    if any(".lora_A." in name or ".lora_B." in name for name in unexpected):
        return " The weights hold adapters: merge them (peft's merge_and_unload) and save again."
    if any(name.startswith(("_fsdp", "module.", "_orig_mod.")) for name in unexpected):
        return " The names are those of a wrapped model: save the model inside of the wrapper."
    return " Check that config.json and the weights belong together."


def tied_copies(shape: ModelShape) -> Mapping[str, str]:
    """Return the Hugging Face names that may stand for another one: {copy: original}."""
    return dict(table_for(shape).tied_copies) if shape.tie_word_embeddings else {}


def check_megatron_tensors(
    checkpoint: MegatronCheckpoint,
    shape: ModelShape,
    mapped: Sequence[MappedTensor],
    adapters: Sequence[MappedAdapter] = (),
) -> None:
    """Check that a checkpoint holds every tensor of the model; optimizer state is ignored.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another size; all are listed.
    """
    check_adapter_tensors(checkpoint, adapters)
    keys = {tensor.key for tensor in mapped}
    known = keys | {tensor.key for adapter in adapters for tensor in adapter.tensors}
    missing = [key for key in keys if key not in checkpoint.tensors]
    unexpected = [
        key for key in checkpoint.tensors if key not in known and not is_optimizer_key(key)
    ]
    if missing or unexpected:
        raise CheckpointError(
            f"{checkpoint.folder}: the checkpoint is not of the model in its hf/config.json "
            f"({shape.model_type}, {shape.num_layers} layers)."
            + listed("Missing", sorted(missing))
            + listed("Not in the mapping", unexpected)
            + " Give a checkpoint of that model."
        )
    for tensor in mapped:
        found = checkpoint.tensors[tensor.key].size
        if not tensor.fits(found):
            _check_size(checkpoint.folder, tensor.key, found, tensor.global_size)


def check_adapter_tensors(
    checkpoint: MegatronCheckpoint, adapters: Sequence[MappedAdapter]
) -> None:
    """Check that a checkpoint holds every LoRA adapter that its state speaks of.

    Raises:
        CheckpointError: Tensors are missing or of another size.
    """
    tensors = [tensor for adapter in adapters for tensor in adapter.tensors]
    missing = [tensor.key for tensor in tensors if tensor.key not in checkpoint.tensors]
    if missing:
        raise CheckpointError(
            f"{checkpoint.folder}: not the adapters of its msm_state.json."
            + listed("Missing", missing)
            + " The checkpoint is damaged; use another iteration."
        )
    for tensor in tensors:
        _check_size(checkpoint.folder, tensor.key, checkpoint.tensors[tensor.key].size, tensor.size)


def is_optimizer_key(key: str) -> bool:
    """Return whether a checkpoint's tensor belongs to the optimizer."""
    return _OPTIMIZER_KEY.match(key) is not None


def listed(title: str, names: Sequence[str]) -> str:
    """Return a sentence that lists the first names and counts all; empty for none."""
    if not names:
        return ""
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f" {title} ({len(names)}): {shown}{more}."


def _check_size(where: Path, name: str, found: Sequence[int], wanted: Size) -> None:
    if tuple(found) != wanted:
        raise CheckpointError(
            f"{where}: tensor {name!r} has size {tuple(found)}, config.json asks for {wanted}. "
            "Check that config.json and the weights belong together."
        )


def _check_tied_copy(weights: HfWeights, copy: str, original: str) -> None:
    if copy not in weights.tensors:
        return
    if not same_bits(read_tensor(weights, copy), read_tensor(weights, original)):
        raise CheckpointError(
            f"{weights.tensors[copy].file}: {copy!r} differs from {original!r}, but config.json "
            "says tie_word_embeddings, with which it would be ignored. Set it to false, or "
            f"remove {copy!r}."
        )
