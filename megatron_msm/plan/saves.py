"""What saving a checkpoint takes: its size, memory of the hosts, time. No torch.

Counted, in bytes of a weight: the weight in its dtype; of one that is trained, while its phase is
not over, main weight and both moments in float32 (12). Ranks share all of it out, and each copies
its part to the host, writes it and hashes it (train/checkpoints/saving.py). The time is an
estimate.
"""

from dataclasses import dataclass

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.models.shape import ModelShape
from megatron_msm.plan.memory import Precision, share_of_copies
from megatron_msm.plan.speed import GPUS_PER_NODE
from megatron_msm.plan.weights import layer_expert_weights, layers_of_rank, weights_of_rank

WRITE_GB_PER_S = 1.0
"""Assumed of each rank, to a file system that all ranks together do not fill."""
HASH_GB_PER_S = 1.3
"""SHA-256 on a core, as measured on a small machine (docs/benchmarks.md)."""
_STATE_BYTES = 12


@dataclass(frozen=True)
class SaveEstimate:
    """One save in the middle of a phase."""

    size_bytes: float
    """The checkpoint on disk."""
    rank_bytes: float
    """What the rank with most takes of its host until its file is written."""
    num_ranks_of_node: int

    @property
    def node_bytes(self) -> float:
        """What a node's host needs, at most."""
        return self.num_ranks_of_node * self.rank_bytes

    @property
    def seconds(self) -> float:
        """Until the checkpoint is complete; training waits for the copy alone if asynchronous."""
        return self.rank_bytes / 1e9 * (1 / WRITE_GB_PER_S + 1 / HASH_GB_PER_S)


def estimate_save(
    shape: ModelShape, parallel: ParallelConfig, lora: LoraConfig | None, precision: Precision
) -> SaveEstimate:
    """Estimate a save under one layout."""
    whole = weights_of_rank(shape, ParallelConfig(), lora, 0)
    return SaveEstimate(
        size_bytes=precision.dtype_bytes * whole.total + _STATE_BYTES * whole.trainable,
        rank_bytes=max(
            _bytes_of_rank(shape, parallel, lora, precision, pipeline_rank)
            for pipeline_rank in range(parallel.pipeline)
        ),
        num_ranks_of_node=min(GPUS_PER_NODE, parallel.world_size),
    )


def _bytes_of_rank(
    shape: ModelShape,
    parallel: ParallelConfig,
    lora: LoraConfig | None,
    precision: Precision,
    pipeline_rank: int,
) -> float:
    rank = weights_of_rank(shape, parallel, lora, pipeline_rank)
    experts = layers_of_rank(shape, parallel, pipeline_rank)
    experts *= layer_expert_weights(shape, parallel.expert)  # frozen ones, too
    weights = precision.dtype_bytes * share_of_copies(rank.total, experts, parallel)
    return weights + _STATE_BYTES * share_of_copies(rank.trainable, rank.experts, parallel)
