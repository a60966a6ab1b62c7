"""Optimizer state into a checkpoint and out of it, each rank its own part and nothing else.

megatron-core's `fully_reshardable` gathers the state of all data parallel ranks on the host of each
before a save, and reads all of it on each of them at a load. What it writes is good: a tensor of
the weight's global shape for the main weights and for each moment, which loads under any layout.
The same tensors are written and read here in parts. A rank's part of a weight is a run of its
elements in row-major order; a run is a few boxes, and torch's checkpoints take any boxes:

    a weight of 5 x 6, elements 9 to 25        . . . . . .
                                               . . . a a a      end of a row
                                               b b b b b b      whole rows
                                               b b b b b b
                                               c c . . . .      beginning of a row

Nothing is sent, nothing is copied that is not this rank's, and where buckets of the gradient buffer
are padded does not matter. Either side reads what the other has written.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import (
    ReplicaId,
    ShardedStateDict,
    ShardedTensor,
    ShardedTensorFactory,
)
from megatron.core.optimizer.cpu_offloading import HybridDeviceOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from megatron_msm.runtime.optimizer_state import StateShard, state_shards_of_part

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Where a box begins in each dimension, and its size."""


def boxes(shape: tuple[int, ...], start: int, end: int) -> Iterator[Box]:
    """Yield the boxes that elements `start` to `end` of a tensor fill, in row-major order."""
    if not shape:
        yield (), ()
        return
    inner = math.prod(shape[1:])
    while start < end:
        row, inside = divmod(start, inner)
        if inside == 0 and end - start >= inner:
            rows = (end - start) // inner
            yield (row, *(0 for _ in shape[1:])), (rows, *shape[1:])
            start += rows * inner
        else:
            until = min(end, (row + 1) * inner)
            for offset, size in boxes(shape[1:], inside, until - row * inner):
                yield (row, *offset), (1, *size)
            start = until


@contextlib.contextmanager
def in_shards() -> Iterator[None]:
    """Make `fully_reshardable` save and load what a rank has, for the length of the block.

    Replaces two methods of megatron-core's DistributedOptimizer, in this process (0.16.1 to 0.19.2,
    optimizer/distrib_optimizer.py). Goes away when megatron-core does not gather.
    """
    replaced = {
        "sharded_param_state_fully_reshardable": _shards,
        "load_parameter_state_from_fully_reshardable": _load,
    }
    before = {name: getattr(DistributedOptimizer, name) for name in replaced}
    for name, ours in replaced.items():
        setattr(DistributedOptimizer, name, ours)
    try:
        yield
    finally:
        for name, theirs in before.items():
            setattr(DistributedOptimizer, name, theirs)


def _shards(
    part: DistributedOptimizer, model_state: ShardedStateDict, *_: Any
) -> dict[int, dict[str, ShardedTensorFactory]]:
    """Describe the state of each weight that this rank has a part of, by index and kind."""
    described = {id(one.data): one for one in nested_values(model_state) if _has_tensor(one)}
    instance = part.distributed_optimizer_instance_id
    return {
        index: {
            name: _shard(described[id(shard.weight)], shard, name, tensor, instance)
            for name, tensor in shard.tensors.items()
        }
        for index, shard in enumerate(state_shards_of_part(part))
    }


def _has_tensor(described: object) -> bool:
    return isinstance(described, (ShardedTensor, ShardedTensorFactory))


def _shard(
    weight: ShardedTensor | ShardedTensorFactory,
    shard: StateShard,
    name: str,
    tensor: torch.Tensor,
    instance: int,
) -> ShardedTensorFactory:
    """Describe one flat tensor of a weight's part as the boxes that it fills.

    Loading fills the tensor in place; what comes back is the tensor as a whole.
    """
    # No data parallel rank has what another one has: the model's last coordinate does not count.
    pipeline, tensor_rank, _ = weight.replica_id

    def build(key: str, flat: torch.Tensor, replica: ReplicaId, _: Any) -> list[ShardedTensor]:
        # Of the weight's shape, without memory: what the model makes of it are views, and a view
        # says where in the weight it lies.
        stand_in = torch.empty(shard.weight.shape, dtype=flat.dtype, device="meta")
        if isinstance(weight, ShardedTensorFactory):
            views = list(nested_values([weight.build_fn(key, stand_in, replica, None)]))
        else:
            views = [replace(weight, key=key, data=stand_in, dtype=flat.dtype, replica_id=replica)]
        return [box for view in views for box in _boxes_of_view(view, stand_in, flat, shard.start)]

    return ShardedTensorFactory(
        f"optimizer.state.{name}.{weight.key}",
        tensor.detach(),
        build,
        lambda _: tensor,
        (pipeline, tensor_rank, instance),
    )


def _boxes_of_view(
    view: ShardedTensor, stand_in: torch.Tensor, flat: torch.Tensor, start: int
) -> Iterator[ShardedTensor]:
    """Yield the boxes of a view of the weight that `flat`, its elements from `start`, reaches."""
    data = view.data
    assert data is not None
    assert data.is_contiguous(), f"{view.key}: not rows of its weight"
    assert data.untyped_storage()._cdata == stand_in.untyped_storage()._cdata, view.key
    begin = int(data.storage_offset())
    low, high = max(start, begin), min(start + flat.numel(), begin + data.numel())
    prepended = view.prepend_axis_num
    origin = view.global_offset
    for offset, size in boxes(tuple(data.shape), low - begin, high - begin):
        there = low - start
        low += math.prod(size)
        whole_size = (*(1 for _ in range(prepended)), *size)
        whole_offset = (*(0 for _ in range(prepended)), *offset)
        yield ShardedTensor(
            view.key,
            flat[there : low - start].view(whole_size),
            flat.dtype,
            whole_size,
            view.global_shape,
            tuple(a + b for a, b in zip(origin, whole_offset, strict=True)),
            axis_fragmentations=None,
            replica_id=view.replica_id,
            allow_shape_mismatch=view.allow_shape_mismatch,
        )


@torch.no_grad()
def _load(part: DistributedOptimizer, state: dict[int, dict[str, torch.Tensor]]) -> None:
    """Take over what was read into the tensors that `_shards` described."""
    for index, shard in enumerate(state_shards_of_part(part)):
        # The same tensors, unless the optimizer keeps a moment in another form than it gives out.
        part._set_main_param_and_optimizer_states(shard.weight, {**shard.tensors, **state[index]})
    if isinstance(part.optimizer, HybridDeviceOptimizer):
        part.optimizer._sync_hdo_state_to_sub_optimizers()
