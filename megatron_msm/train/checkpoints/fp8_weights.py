"""What a checkpoint keeps of weights that are computed with in FP8: the main weights, in bf16.

A phase that began with FP8's numbers would have main weights on FP8's grid, and an update of less
than half a step of the grid would be rounded away: at e4m3 a step is up to an eighth of the weight.
In bf16 the FP8 numbers come out as they were, as Transformer Engine rounds main weights to bf16
before it scales them (2.20, pytorch/tensor/utils.py, `quantize_master_weights`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from megatron.core.optimizer import MegatronOptimizer

from megatron_msm.runtime.optimizer_state import MAIN_WEIGHT, state_shards
from megatron_msm.runtime.process_groups import ParallelRanks

MainWeights = Sequence[Mapping[str, torch.Tensor]]
"""For each model chunk: main weights by the weight's name."""


def is_fp8(weight: torch.Tensor) -> bool:
    """Return whether a weight is kept in FP8."""
    return type(weight).__module__.startswith("transformer_engine")


def main_weights_of_fp8(
    chunks: Sequence[Any], optimizer: MegatronOptimizer, ranks: ParallelRanks
) -> MainWeights:
    """Return the main weights of all FP8 weights, whole and in bf16; called by all ranks alike.

    Args:
        chunks: This rank's model chunks, GPTModels.
        optimizer: Has this rank's parts of the main weights.
        ranks: Their data parallel ranks have the other parts.
    """
    shards = {id(shard.weight): shard for shard in state_shards(optimizer)}
    found: list[dict[str, torch.Tensor]] = []
    for chunk in chunks:
        found.append({})
        for name, weight in chunk.named_parameters():
            if not is_fp8(weight):
                continue
            main = torch.zeros(weight.numel(), dtype=torch.bfloat16, device=weight.device)
            shard = shards.get(id(weight))
            if shard is not None:
                main[shard.start : shard.end] = shard.tensors[MAIN_WEIGHT]
            is_expert = not getattr(weight, "allreduce", True)
            group = ranks.groups.expt_dp if is_expert else ranks.groups.dp_cp
            torch.distributed.all_reduce(main, group=group)
            found[-1][name] = main.view(weight.shape)
    return found
