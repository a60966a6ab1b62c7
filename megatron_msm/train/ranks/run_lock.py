"""OUT/_lock.json: who trains in a run folder. Two jobs never do. No torch."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from megatron_msm.errors import ConfigError
from megatron_msm.formats.lock_file import Holder, held

LOCK_FILE = "_lock.json"
"""No phase can have such a name."""


@contextlib.contextmanager
def run_lock(out: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made where it is missing.

    Raises:
        ConfigError: Another process holds it; the message names it.
    """
    path = out / LOCK_FILE

    def refuse(found: Holder) -> None:
        if found.job is None:
            known = "If it is certainly gone"
        else:
            known = (
                f"SLURM does not say here that the job has ended; if it has (sacct -j {found.job})"
            )
        raise ConfigError(
            f"out: {out} is being trained in by {found}. Wait for its end, stop it, or choose "
            f"another `out` folder. {known}, delete {path}."
        )

    with contextlib.ExitStack() as lock:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock.enter_context(held(path, refuse))
        except OSError as error:
            raise ConfigError(
                f"out: {out} cannot be used: {error}. Choose a folder that can be written, on a "
                "file system with hard links."
            ) from None
        yield
