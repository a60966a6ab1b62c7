"""Memory of the fullest rank, by part. No torch. Parameters exact, activations an estimate.

Bytes of a weight (megatron-core docs, dist_optimizer): the weight in its dtype; for those that are
trained, a float32 gradient, and over the data parallel ranks together float32 moments (8) and, when
the weights are not float32, a float32 main copy (4).
"""

from dataclasses import dataclass

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.memory import MemoryConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.batch_shape import BatchShape
from megatron_msm.plan.activations import activation_bytes, logits_bytes
from megatron_msm.plan.weights import weights_of_rank

RESERVE_BYTES = 3 * 2**30
"""Room for what is not estimated: the CUDA context, NCCL's and cuBLAS's buffers, fragments."""


@dataclass(frozen=True)
class Precision:
    """Bytes of the numbers that a run keeps."""

    dtype_bytes: int
    """Weights and activations: 2 for bf16, 4 for fp32."""

    @property
    def optimizer_bytes(self) -> int:
        """Both moments, and main weights where the weights are not float32."""
        return 8 if self.dtype_bytes == 4 else 12


@dataclass(frozen=True)
class RankMemory:
    """Memory of one rank at its fullest, by part."""

    pipeline_rank: int
    weights_bytes: float
    gradients_bytes: float
    optimizer_bytes: float
    activations_bytes: float
    logits_bytes: float

    @property
    def total_bytes(self) -> float:
        """All parts; without the reserve."""
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
            + self.logits_bytes
        )


@dataclass(frozen=True)
class MemoryModel:
    """What decides a run's memory, but for the layout."""

    shape: ModelShape
    lora: LoraConfig | None
    memory: MemoryConfig
    precision: Precision

    def of_rank(
        self, parallel: ParallelConfig, batch: BatchShape, pipeline_rank: int
    ) -> RankMemory:
        """Return the memory of one pipeline rank."""
        weights = weights_of_rank(self.shape, parallel, self.lora, pipeline_rank)
        positions = batch.micro_batch_size * batch.seq_length // parallel.context
        is_last = pipeline_rank == parallel.pipeline - 1
        logits = logits_bytes(
            self.shape,
            parallel,
            self.memory,
            positions=positions,
            dtype_bytes=self.precision.dtype_bytes,
            is_trained=self.lora is None,
        )
        optimizer = self.precision.optimizer_bytes * (1 - self.memory.optimizer_offload)
        return RankMemory(
            pipeline_rank=pipeline_rank,
            weights_bytes=self.precision.dtype_bytes * weights.total,
            gradients_bytes=4 * weights.trainable,
            optimizer_bytes=optimizer
            * share_of_copies(weights.trainable, weights.experts, parallel),
            activations_bytes=activation_bytes(
                self.shape,
                parallel,
                self.memory,
                pipeline_rank,
                positions=positions,
                num_micro_batches=num_micro_batches(parallel, batch),
                dtype_bytes=self.precision.dtype_bytes,
            ),
            logits_bytes=logits if is_last else 0.0,
        )

    def fullest_rank(self, parallel: ParallelConfig, batch: BatchShape) -> RankMemory:
        """Return the memory of the rank that needs most."""
        ranks = (self.of_rank(parallel, batch, rank) for rank in range(parallel.pipeline))
        return max(ranks, key=lambda rank: rank.total_bytes)


def share_of_copies(weights: int, experts: int, parallel: ParallelConfig) -> float:
    """Return the weights that fall to a rank when those with the same ones share them out.

    Args:
        weights: Of a rank.
        experts: Those of them that are experts', which fewer ranks have copies of.
        parallel: The layout.
    """
    dense = (weights - experts) / (parallel.data * parallel.context)
    return dense + experts * parallel.expert / parallel.expert_pool


def num_micro_batches(parallel: ParallelConfig, batch: BatchShape) -> int:
    """Return the micro batches of one optimizer step and data parallel rank."""
    return batch.global_batch_size // (batch.micro_batch_size * parallel.data)
