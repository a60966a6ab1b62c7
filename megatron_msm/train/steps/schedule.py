"""Learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math

from megatron_msm.config.optimization import ScheduleConfig
from megatron_msm.errors import ConfigError

_WARMUP_FRACTION = 0.05
_DECAY_FRACTION = 0.2


def warmup_steps(schedule: ScheduleConfig, num_steps: int, tokens_per_step: int) -> int:
    """Return the steps of linear warm-up in a phase of `num_steps`."""
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    if schedule.warmup_tokens is not None:
        return math.ceil(schedule.warmup_tokens / tokens_per_step)
    fraction = schedule.warmup_fraction
    share = _WARMUP_FRACTION if fraction is None else fraction
    return min(math.ceil(share * num_steps), num_steps - 1)


def decay_steps(schedule: ScheduleConfig, num_steps: int, tokens_per_step: int) -> int:
    """Return the steps of `wsd` at the end of a phase in which the rate falls."""
    if schedule.decay_steps is not None:
        return schedule.decay_steps
    if schedule.decay_tokens is not None:
        return math.ceil(schedule.decay_tokens / tokens_per_step)
    fraction = schedule.decay_fraction
    return math.ceil((_DECAY_FRACTION if fraction is None else fraction) * num_steps)


def check_schedule(schedule: ScheduleConfig, *, num_steps: int, tokens_per_step: int) -> None:
    """Refuse a schedule that does not fit into the phase.

    Raises:
        ConfigError: The warm-up, or warm-up and decay together, are longer than the phase.
    """
    warmup = warmup_steps(schedule, num_steps, tokens_per_step)
    decay = decay_steps(schedule, num_steps, tokens_per_step) if schedule.kind == "wsd" else 0
    if warmup >= num_steps or warmup + decay > num_steps:
        parts = f"warm-up of {warmup} steps" + (f" and decay of {decay}" if decay else "")
        raise ConfigError(
            f"schedule: a {parts} do not fit into the {num_steps} steps of the phase, which would "
            "never reach its learning rate. Shorten them, or train longer."
        )


def learning_rate(
    schedule: ScheduleConfig, *, peak: float, step: int, num_steps: int, tokens_per_step: int
) -> float:
    """Return the learning rate of optimizer step `step`, counted from 0.

    Warm-up rises in equal parts so that its last step has the peak; the decay then falls so that
    the phase's last step ends just above `min_lr_fraction` of the peak.
    """
    warmup = warmup_steps(schedule, num_steps, tokens_per_step)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if schedule.kind == "constant":
        return peak
    start = warmup
    if schedule.kind == "wsd":
        start = num_steps - decay_steps(schedule, num_steps, tokens_per_step)
    progress = max(step - start, 0) / max(num_steps - start, 1)
    decay = 0.5 * (1 + math.cos(math.pi * progress)) if schedule.kind == "cosine" else 1 - progress
    return peak * (schedule.min_lr_fraction + (1 - schedule.min_lr_fraction) * decay)
