"""From what a step showed to its line of metrics."""

import resource

import numpy as np
import torch

from megatron_msm.data.blend import Blend
from megatron_msm.formats.metrics_file import StepMetrics
from megatron_msm.models.sizes.flops import flops_per_token, utilization
from megatron_msm.models.sizes.gpus import MatmulPrecision, gpu_of_device
from megatron_msm.runtime.device import Runtime
from megatron_msm.train.resolved_run import ResolvedPhase, ResolvedRun
from megatron_msm.train.steps.step import StepResult
from megatron_msm.train.steps.timing import PartTimes


class StepReport:
    """Makes the lines of one phase.

    Args:
        run: The run.
        phase: The phase.
        runtime: What the ranks run on.
        group_names: Names of the parts of the data whose losses are told apart.
    """

    def __init__(
        self, run: ResolvedRun, phase: ResolvedPhase, runtime: Runtime, group_names: tuple[str, ...]
    ) -> None:
        self._phase = phase
        self._num_ranks = run.config.parallel.world_size
        self._is_cuda = runtime.is_cuda
        self._precision: MatmulPrecision = "fp32"
        if runtime.params_dtype is torch.bfloat16:
            self._precision = "bf16" if runtime.fp8 is None else "fp8"
        self._group_names = group_names
        self._flops = flops_per_token(
            run.shape, mean_context(phase.blend), lora=run.config.lora is not None
        )
        self._gpu = gpu_of_device(torch.cuda.get_device_name()) if runtime.is_cuda else None

    def line(
        self, step: int, lr: float, result: StepResult, times: PartTimes, skipped_steps: int
    ) -> StepMetrics:
        """Return the line of a step, counted from 0."""
        parts = times.seconds()
        seconds = sum(parts.values())
        tokens = self._phase.config.tokens_per_step
        rate = tokens / seconds
        reached = rate / self._num_ranks * self._flops / 1e12
        return StepMetrics(
            phase=self._phase.config.name,
            step=step + 1,
            loss=result.loss_nats if np.isfinite(result.loss_nats) else None,
            lr=lr,
            grad_norm=result.grad_norm if np.isfinite(result.grad_norm) else None,
            skipped_steps=skipped_steps,
            loss_tokens=result.num_loss_tokens,
            processed_tokens=tokens,
            tokens_per_s=rate,
            loss_tokens_per_s=result.num_loss_tokens / seconds,
            tflops_per_s=reached,
            mfu=self._mfu(rate / self._num_ranks),
            peak_gib=self._peak_gib(),
            step_s=seconds,
            data_s=times.data_s,
            forward_backward_s=max(parts["forward_backward"] - times.data_s, 0.0),
            optimizer_s=parts["optimizer"],
            parts={
                f"loss/{name}_nats": loss
                for name, loss in zip(self._group_names, result.group_losses, strict=True)
                if loss is not None and np.isfinite(loss)
            },
        )

    def _mfu(self, rate: float) -> float | None:
        """Return the share of the GPU's peak that `rate` tokens a second and GPU are."""
        if self._gpu is None or self._precision not in self._gpu.peak_tflops:
            return None
        return utilization(rate, self._flops, self._gpu, self._precision).share

    def _peak_gib(self) -> float:
        if self._is_cuda:
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def mean_context(blend: Blend) -> float:
    """Return the document length that attention sees, weighted as in models/sizes/flops.py."""
    visits = blend.order.visits_before(blend.order.total)
    squares = positions = 0.0
    for source, count in zip(blend.dataset.sources, visits, strict=True):
        lengths = source.packing_index.segments.length.astype(np.float64)
        share = count / len(source.packing_index)
        squares += share * float((lengths**2).sum())
        positions += share * float(lengths.sum())
    return squares / positions
