"""Errors a user can act on.

Each message has three parts: what was found and where (file, field or line), what is needed, and
what to do next. The command line prints the message alone and exits with the class's status; every
other exception is a defect of ours and keeps its traceback.
"""

AGAIN_STATUS = 75
"""EX_TEMPFAIL of sysexits.h: what was done is kept, and the same command goes on with it."""
INTERRUPTED_STATUS = 130
"""128 and the number of SIGINT, as shells have it: Ctrl-C ended the command at once."""


class MsmError(Exception):
    """Base of all errors that are meant for the user."""

    exit_status = 1


class ConfigError(MsmError):
    """Something the user wrote (option, run file, layout) is wrong."""

    exit_status = 2


class DataFormatError(MsmError):
    """An input file or dataset is broken, or does not match what it is used with."""

    exit_status = 2


class CheckpointError(MsmError):
    """A checkpoint or model folder is incomplete, damaged, or of another model."""

    exit_status = 2


class CheckpointWriteError(MsmError):
    """A checkpoint could not be written, for instance because the disk is full."""


class DivergedError(MsmError):
    """Training cannot go on: loss or gradient is not finite any more."""


class SamplingError(MsmError):
    """A judged model or its judge gave no reply; those that were given are kept."""


class MissingExtraError(ConfigError):
    """An optional feature was asked for and its packages are not installed."""

    def __init__(self, *, feature: str, extra: str) -> None:
        """Name the feature and the install line that brings it."""
        super().__init__(
            f"{feature} needs packages that are not installed. "
            f"Install them with: pip install 'megatron-msm[{extra}]'"
        )


class UnansweredError(MsmError):
    """A server did not answer; what it did answer is kept, and the same command goes on with it."""

    exit_status = AGAIN_STATUS


class PreemptedError(MsmError):
    """The run was told to stop and has saved its position; the same command goes on with it."""

    exit_status = AGAIN_STATUS
