"""Seconds of an optimizer step. No torch. An estimate, held to published figures by a test.

    compute       FLOPs (models/sizes/flops.py) at the share of the peak that Megatron reaches
    recompute     the layers' forward pass again, or the recomputed part of it
    tensor        two all-reduces a layer and pass, of the positions' hidden states; not hidden
    context       keys and values of the other ranks; what half of attention's time does not hide
    pipeline      (p - 1) / (v m) of the above, for p stages, v chunks and m micro batches; the wait
                  for the stage with most layers; messages between stages
    data          gradients reduced and weights gathered; what the last backward pass does not hide
    optimizer     its state read and written once; the offloaded share by the CPU

Sources: Narayanan et al. 2021 (arXiv 2104.04473, sections 2.2 and 3.2) for bubble and traffic. The
shares of the peak are fitted to published rows of H100s: NVIDIA's DGXC 25.04 and, for LoRA, those
of NeMo AutoModel; other GPUs are assumed to reach the same shares.
"""

from dataclasses import dataclass

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.memory import MemoryConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.adapter_sizes import num_adapter_parameters
from megatron_msm.models.sizes.batch_shape import BatchShape
from megatron_msm.models.sizes.flops import attention_flops_per_token, linear_flops_per_token
from megatron_msm.models.sizes.gpus import Gpu, MatmulPrecision
from megatron_msm.models.sizes.layout import layers_of_pipeline_stages
from megatron_msm.plan.memory import Precision, num_micro_batches
from megatron_msm.plan.weights import weights_of_rank

# Shares of the dense peak. Attention stays in bf16 under FP8.
LINEAR_SHARE: dict[MatmulPrecision, float] = {"bf16": 0.62, "fp8": 0.46, "fp32": 0.7}
ATTENTION_SHARE = 0.4
LORA_SHARE = 0.77
"""Share of the linear layers' rate that is left with thin adapter matrices beside each."""
LINK_SHARE = 0.75
"""Share of a link's rate that large collectives reach."""
GPUS_PER_NODE = 8
HOST_GB_PER_S = 25
"""What one rank gets of the link to the CPU, and of the CPU's memory when all ranks of a node use
it. Assumed: an offloaded optimizer was never run on a GPU."""
LATENCY_S = 2e-5
"""Latency of one collective or message."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, by part."""

    compute_s: float
    recompute_s: float
    tensor_s: float
    context_s: float
    pipeline_s: float
    data_s: float
    optimizer_s: float

    @property
    def total_s(self) -> float:
        """All parts, which follow each other."""
        passes = (
            self.compute_s + self.recompute_s + self.tensor_s + self.context_s + self.pipeline_s
        )
        return passes + self.data_s + self.optimizer_s


@dataclass(frozen=True)
class SpeedModel:
    """What decides a step's time, but for the layout."""

    shape: ModelShape
    lora: LoraConfig | None
    memory: MemoryConfig
    precision: Precision
    matmul: MatmulPrecision
    gpu: Gpu

    def step_time(self, parallel: ParallelConfig, batch: BatchShape) -> StepTime:
        """Return the estimate for one layout."""
        tokens = batch.global_batch_size * batch.seq_length
        linear, attention = self._compute(tokens / parallel.world_size, batch.seq_length)
        recompute = self._recompute(linear, attention)
        tensor = self._tensor(parallel, batch)
        context = max(0.0, self._context(parallel, batch) - attention / 2)
        work = linear + attention + recompute + tensor + context
        rounds = num_micro_batches(parallel, batch)
        weights = weights_of_rank(self.shape, parallel, self.lora, 0)
        return StepTime(
            compute_s=linear + attention,
            recompute_s=recompute,
            tensor_s=tensor,
            context_s=context,
            pipeline_s=self._pipeline(parallel, batch, work),
            data_s=self._data(parallel, weights.trainable, hidden_by=work / rounds / 2),
            optimizer_s=self._optimizer(parallel, weights.trainable),
        )

    def _compute(self, tokens: float, seq_length: int) -> tuple[float, float]:
        """Return the seconds of linear layers and of attention, for tokens of one rank."""
        linear = linear_flops_per_token(self.shape, lora=self.lora is not None)
        share = LINEAR_SHARE[self.matmul]
        if self.lora is not None:
            linear += 6.0 * num_adapter_parameters(self.shape, self.lora)
            share *= LORA_SHARE
        attention = attention_flops_per_token(self.shape, seq_length)
        dense = self.gpu.peak_tflops["fp32" if self.matmul == "fp32" else "bf16"] * 1e12
        peak = self.gpu.peak_tflops[self.matmul] * 1e12
        return (
            tokens * linear / (peak * share),
            tokens * attention / (dense * ATTENTION_SHARE),
        )

    def _recompute(self, linear: float, attention: float) -> float:
        """Return the seconds of the forward passes that are made again."""
        forward = (linear / (2 if self.lora is not None else 3), attention / 3)
        if self.memory.recompute == "full":
            return sum(forward)
        if self.memory.recompute == "none":
            return 0.0
        modules = self.memory.recompute_modules
        mlp = 3 * self.shape.active_ffn_hidden_size
        mlp_share = mlp / (mlp + 2 * (self.shape.query_size + self.shape.key_size))
        again = mlp_share * forward[0] if {"mlp", "moe"} & set(modules) else 0.0
        return again + (forward[1] if "core_attn" in modules else 0.0)

    def _bandwidth(self, ranks: int) -> float:
        """Return bytes per second between `ranks` neighbours."""
        inside = ranks <= GPUS_PER_NODE
        rate = self.gpu.nvlink_gb_per_s if inside else self.gpu.network_gb_per_s
        return rate * 1e9 * LINK_SHARE

    def _tensor(self, parallel: ParallelConfig, batch: BatchShape) -> float:
        if parallel.tensor == 1:
            return 0.0
        positions = batch.global_batch_size * batch.seq_length / parallel.data / parallel.context
        layers = self.shape.num_layers / parallel.pipeline
        once = positions * self.shape.hidden_size * self.precision.dtype_bytes
        moved = 4 * layers * once * 2 * (parallel.tensor - 1) / parallel.tensor
        waits = 4 * layers * num_micro_batches(parallel, batch) * LATENCY_S
        return moved / self._bandwidth(parallel.tensor) + waits

    def _context(self, parallel: ParallelConfig, batch: BatchShape) -> float:
        if parallel.context == 1:
            return 0.0
        positions = batch.global_batch_size * batch.seq_length / parallel.data / parallel.context
        keys = 2 * self.shape.key_size / parallel.tensor
        layers = self.shape.num_layers / parallel.pipeline
        # Forward: keys and values; backward: these and their gradients.
        moved = 3 * positions * keys * self.precision.dtype_bytes * layers * (parallel.context - 1)
        exchanges = 2 * layers * num_micro_batches(parallel, batch) * (parallel.context - 1)
        bandwidth = self._bandwidth(parallel.tensor * parallel.context)
        return moved / bandwidth + exchanges * LATENCY_S

    def _pipeline(self, parallel: ParallelConfig, batch: BatchShape, work: float) -> float:
        if parallel.pipeline == 1:
            return 0.0
        rounds, chunks = num_micro_batches(parallel, batch), parallel.virtual_pipeline
        bubble = work * (parallel.pipeline - 1) / (chunks * rounds)
        assigned = layers_of_pipeline_stages(self.shape.num_layers, parallel)
        waiting = work * (max(assigned) * len(assigned) / sum(assigned) - 1)
        split = parallel.tensor if parallel.sequence else 1
        message = batch.positions(parallel) * self.shape.hidden_size * self.precision.dtype_bytes
        between = self._bandwidth(parallel.tensor * parallel.context * parallel.pipeline)
        messages = 2 * chunks * rounds * (message / split / between + LATENCY_S)
        return bubble + waiting + messages

    def _data(self, parallel: ParallelConfig, trainable: int, *, hidden_by: float) -> float:
        copies = parallel.data * parallel.context
        if copies == 1:
            return 0.0
        moved = trainable * (4 + self.precision.dtype_bytes) * (copies - 1) / copies
        seconds = moved / self._bandwidth(parallel.tensor * copies)
        return max(0.0, seconds - hidden_by)

    def _optimizer(self, parallel: ParallelConfig, trainable: int) -> float:
        mine = trainable / (parallel.data * parallel.context)
        moved = mine * (2 * self.precision.optimizer_bytes + 4 + self.precision.dtype_bytes)
        offload = self.memory.optimizer_offload
        # Gradients go down and weights up, and the CPU reads and writes what the GPU would.
        by_host = offload * (mine * (4 + self.precision.dtype_bytes) + moved)
        by_gpu = (1 - offload) * moved
        return by_gpu / (self.gpu.memory_gb_per_s * 1e9 * LINK_SHARE) + by_host / (
            HOST_GB_PER_S * 1e9
        )
