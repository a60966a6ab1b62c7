"""Rows of metrics.jsonl."""

from collections.abc import Mapping

from megatron_msm.formats.metrics_file import StepMetrics


def row_of(
    step: int, parts: Mapping[str, float] | None = None, *, phase: str = "sft"
) -> StepMetrics:
    """A step's numbers."""
    return StepMetrics(
        phase=phase,
        step=step,
        loss=2.0,
        lr=1e-5,
        grad_norm=1.0,
        skipped_steps=0,
        loss_tokens=10,
        processed_tokens=20,
        tokens_per_s=20.0,
        loss_tokens_per_s=10.0,
        tflops_per_s=0.1,
        peak_gib=1.0,
        step_s=1.0,
        data_s=0.1,
        forward_backward_s=0.8,
        optimizer_s=0.1,
        parts=dict(parts or {}),
    )
