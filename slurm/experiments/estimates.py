"""What training stages need on GPUs that need not be here, as `msm plan` estimates it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megatron_msm.train.estimating import estimate
from slurm.stages.stage import Stage

_GIB = 2**30


@dataclass(frozen=True)
class StageEstimate:
    """One training stage on one kind of GPU."""

    gpu_hours: float | None
    """None when its length is not known."""
    hours: float | None
    """From start to end, without waiting in the queue."""
    misfit: str | None
    """Why it does not fit; None when it does."""
    gpu: str
    """The kind of GPU."""


def estimate_training(stages: Sequence[Stage], gpu: str) -> dict[str, StageEstimate]:
    """Return the estimate of every training stage, by identity.

    Raises:
        ConfigError: The kind of GPU is not known, or cannot run the precision.
    """
    return {stage.identity: _estimate(stage, gpu) for stage in stages if stage.run is not None}


def misfits(stages: Sequence[Stage], estimates: Mapping[str, StageEstimate]) -> list[str]:
    """Name each training stage that does not fit, with what it needs."""
    return [
        f"DOES NOT FIT  {stage.label}: {found.misfit}"
        for stage in stages
        if (found := estimates.get(stage.identity)) is not None and found.misfit
    ]


def _estimate(stage: Stage, gpu: str) -> StageEstimate:
    assert stage.run is not None
    found = estimate(stage.run, gpu=gpu, model=stage.model)
    own, misfit = found.own, None
    assert own is not None  # the number of GPUs is that of the layout
    if not own.fits:
        misfit = (
            f"its fullest rank needs {own.memory.total_bytes / _GIB:.0f} GiB of the {gpu}'s "
            f"{found.gpu.memory_gib:.0f} GiB, with 3 kept free. Change run.parallel or run.memory; "
            "`msm plan` of its run.yaml lists what fits."
        )
    hours = None if found.seconds is None else found.seconds / 3600
    return StageEstimate(gpu_hours=found.gpu_hours, hours=hours, misfit=misfit, gpu=gpu)
