"""What megatron-core's distributed optimizer keeps on this rank, weight by weight."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

MAIN_WEIGHT = "param"
"""Name of the weights that the optimizer updates, beside `exp_avg` and `exp_avg_sq`."""


@dataclass(frozen=True)
class StateShard:
    """The optimizer's tensors of this rank's part of a weight."""

    weight: torch.nn.Parameter
    start: int
    """Where the part begins in the flattened weight."""
    end: int
    tensors: dict[str, torch.Tensor]
    """The main weights and both moments, flat."""

    @property
    def part(self) -> torch.Tensor:
        """The part of the weight that the model computes with."""
        return self.weight.detach().view(-1)[self.start : self.end]


def state_shards(optimizer: MegatronOptimizer) -> Iterator[StateShard]:
    """Yield the state of each weight that this rank has a part of, in the model's order."""
    for part in _parts(optimizer):
        if not part.is_stub_optimizer:
            yield from state_shards_of_part(part)


def state_shards_of_part(part: DistributedOptimizer) -> Iterator[StateShard]:
    """Yield the same of one of the optimizers that megatron-core chains.

    Source: megatron-core 0.16.1, optimizer/distrib_optimizer.py:610 and :883.
    """
    for weight in part.model_param_group_index_map:
        where = part._get_model_param_range_map(weight)["param"]
        tensors = part._get_main_param_and_optimizer_states(weight)
        # torch's own Adam keeps the step count, a scalar, with each weight.
        flat = {name: tensor for name, tensor in tensors.items() if name != "step"}
        yield StateShard(weight, where.start, where.end, flat)


def begin_state(optimizer: MegatronOptimizer) -> None:
    """Make the moments, zeros, which the first update would make.

    Without them a save before it fails: where every step so far was skipped, for example.
    """
    for part in _parts(optimizer):
        if part.init_state_fn is not None and not part.is_stub_optimizer:
            part.init_state_fn(part.optimizer, part.config)


def step_counts(optimizer: MegatronOptimizer) -> list[int | torch.Tensor | None]:
    """Return the steps that each parameter group has counted, on which bias correction depends."""
    return [
        group.get("step")
        for part in _parts(optimizer)
        if not part.is_stub_optimizer
        for group in part.optimizer.param_groups
        if group["params"]
    ]


def _parts(optimizer: MegatronOptimizer) -> list[DistributedOptimizer]:
    return list(getattr(optimizer, "chained_optimizers", [optimizer]))
