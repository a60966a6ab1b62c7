"""When a phase saves, and what it keeps."""

from megatron_msm.config.section import PositiveInt, Section


class CheckpointConfig(Section):
    """When a phase saves. It always saves at its end."""

    save_interval_steps: PositiveInt = 100
    """Optimizer steps between checkpoints."""
    keep_last: PositiveInt = 2
    """Older checkpoints of the phase than this many are removed."""
