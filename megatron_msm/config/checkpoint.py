"""When a phase saves, and what it keeps."""

from megatron_msm.config.section import PositiveInt, Section


class CheckpointConfig(Section):
    """When a phase saves. It always saves at its end, and when the run is told to stop."""

    save_interval_steps: PositiveInt = 100
    """Optimizer steps between checkpoints."""
    keep_last: PositiveInt = 2
    """So many of the newest interval checkpoints of the phase are kept. One that was saved because
    the run was told to stop is removed with the next save."""
    keep_every_steps: PositiveInt | None = None
    """Checkpoints of steps that are multiples of this are kept for good."""
    asynchronous: bool = False
    """Write files in a forked process while training goes on. Needs host memory for one more copy
    of a rank's weights and optimizer state. At most one save is under way."""
    prove: bool = False
    """Prove every save and not the phase's last one alone: what the ranks hold fits together, and
    the files, read back, give the same bits. Training waits for it, also with `asynchronous`."""
