"""Learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math

from megatron_msm.config.optimization import ScheduleConfig


def warmup_steps(schedule: ScheduleConfig, num_steps: int) -> int:
    """Return the steps of linear warm-up in a phase of `num_steps`."""
    return min(math.ceil(schedule.warmup_fraction * num_steps), num_steps - 1)


def learning_rate(schedule: ScheduleConfig, *, peak: float, step: int, num_steps: int) -> float:
    """Return the learning rate of optimizer step `step`, counted from 0.

    Warm-up rises in equal parts so that its last step has the peak; the decay then falls so that
    the phase's last step ends just above `min_lr_fraction` of the peak.
    """
    warmup = warmup_steps(schedule, num_steps)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(num_steps - warmup, 1)
    if schedule.kind == "constant":
        return peak
    decay = 0.5 * (1 + math.cos(math.pi * progress)) if schedule.kind == "cosine" else 1 - progress
    return peak * (schedule.min_lr_fraction + (1 - schedule.min_lr_fraction) * decay)
