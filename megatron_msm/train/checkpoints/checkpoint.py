"""What of a rank goes into a checkpoint, and loading it through megatron-core.

Keys are per layer and global, so a checkpoint loads under any layout.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path

import orjson
import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.dist_checkpointing.utils import force_all_tensors_to_non_fp8
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint.api import CheckpointException

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.json_types import JsonObject
from megatron_msm.models.layers.lora import is_adapter
from megatron_msm.runtime.extra_state import is_extra_state
from megatron_msm.runtime.megatron_versions import installed_version, readable_common_backends
from megatron_msm.runtime.optimizer_shards import in_shards
from megatron_msm.runtime.safe_metadata import restricted_metadata_reading

# Optimizer state that loads under any layout: distrib_optimizer.py, sharded_state_dict. The default
# fails with "flattened_range is not supported" in megatron-core 0.16.1. `in_shards` makes it what a
# rank has, without gathering.
CONTENT = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "non_homogeneous_layers": True,
}


def chunk_name(index: int) -> str:
    """Return a model chunk's name in the dictionary of a rank's state."""
    return f"model{index}"


def sharded_state(
    chunks: Sequence[GPTModel], optimizer: MegatronOptimizer | None, *, is_loading: bool
) -> ShardedStateDict:
    """Describe this rank's shards: of its model chunks, and the optimizer's when it takes part."""
    # Names in this dictionary are local to the rank: a chunk counts its layers from 0. The keys of
    # the shards inside are global.
    state = {chunk_name(index): _model_state(chunk) for index, chunk in enumerate(chunks)}
    if optimizer is not None:
        with in_shards():
            described = optimizer.sharded_state_dict(
                dict(state), is_loading=is_loading, metadata=dict(CONTENT)
            )
        state["optimizer"] = _without_classes(described)
    return state


def _without_classes(state: ShardedStateDict) -> ShardedStateDict:
    """Leave out the classes of an offloaded optimizer's parts, which a safe load refuses.

    They follow from the run's settings. Source: megatron-core 0.16.1,
    optimizer/cpu_offloading/hybrid_optimizer.py, `defaults` of each parameter group.
    """
    return {
        key: _without_classes(value)
        if isinstance(value, dict)
        else [_without_classes(each) if isinstance(each, dict) else each for each in value]
        if isinstance(value, list)
        else value
        for key, value in state.items()
        if not isinstance(value, type)
    }


def _model_state(chunk: GPTModel) -> ShardedStateDict:
    # A copy each time: megatron-core leaves process groups in it (transformer/utils.py:205).
    return {
        key: value
        for key, value in chunk.sharded_state_dict(metadata=dict(CONTENT)).items()
        if not is_extra_state(key)
    }


def load_checkpoint(
    folder: Path,
    chunks: Sequence[GPTModel],
    optimizer: MegatronOptimizer | None,
    *,
    with_adapters: bool = True,
) -> dict[str, dict[str, torch.Tensor]]:
    """Load an iteration folder into this rank's model chunks, and optimizer when given.

    Args:
        folder: A complete iteration.
        chunks: This rank's model chunks, GPTModels.
        optimizer: Left out when a phase begins.
        with_adapters: False when the model's LoRA adapters are new and the checkpoint has none.

    Returns:
        The tensors of each chunk as they were read, in the form that the optimizer's
        `reload_model_params` takes.

    Raises:
        CheckpointError: A tensor is missing or has another shape, or a file is not what
            megatron-core's torch_dist format has there. Nothing in it has run.
    """
    _check_format(folder)
    wanted = sharded_state(chunks, optimizer, is_loading=True)
    kept: dict[str, dict[str, torch.Tensor]] = {}
    for index, chunk in enumerate(chunks):
        name = chunk_name(index)
        kept[name] = {}
        if not with_adapters:
            kept[name] = {k: v for k, v in chunk.state_dict().items() if is_adapter(k)}
            wanted[name] = {k: v for k, v in wanted[name].items() if not is_adapter(k)}
    # megatron-core 0.19 would read into the FP8 weights, and what was read would be lost.
    force_all_tensors_to_non_fp8(wanted)
    with restricted_metadata_reading():
        try:
            loaded = dist_checkpointing.load(wanted, str(folder))
        except _LOAD_ERRORS as error:
            raise CheckpointError(f"{folder}: cannot be loaded into this model: {error}") from error
    states = {name: {**loaded[name], **kept[name]} for name in kept}
    for index, chunk in enumerate(chunks):
        _load_chunk(chunk, states[chunk_name(index)])
    if optimizer is not None:
        with in_shards():
            optimizer.load_state_dict(loaded["optimizer"])
    return states


def _load_chunk(chunk: GPTModel, state: dict[str, torch.Tensor]) -> None:
    """Copy a checkpoint's tensors into a model chunk; every weight must be among them."""
    result = chunk.load_state_dict(state, strict=False)
    # Transformer Engine's layers ask for what `_model_state` leaves out.
    missing = [name for name in result.missing_keys if not is_extra_state(name)]
    assert not missing, missing
    assert not result.unexpected_keys, result.unexpected_keys


_LOAD_ERRORS = (
    CheckpointException,
    CheckpointingException,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
    pickle.UnpicklingError,
)


def _check_format(folder: Path) -> None:
    """Refuse the formats of other megatron-core versions, which other loaders would read."""
    path = folder / "metadata.json"
    try:
        content: JsonObject = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}. Use another iteration.") from None
    sharded, common = content.get("sharded_backend"), content.get("common_backend")
    readable = readable_common_backends()
    if sharded != "torch_dist" or common not in readable:
        raise CheckpointError(
            f"{path}: sharded_backend is {sharded!r} and common_backend {common!r}; torch_dist and "
            f"one of {list(readable)} are needed. Give a checkpoint that `msm convert import` or "
            f"`msm train` wrote, with megatron-core {installed_version()} or an older one."
        )
