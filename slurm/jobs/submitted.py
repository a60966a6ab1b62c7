"""Which job was started last for a folder, and the lock under which one is started.

The lock is a file that is made exclusively, which holds on NFS too; it names its holder, so that
one left behind by a dead process of this host is taken over.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import orjson
from filelock import SoftFileLock, Timeout

from megatron_msm.config.section import Section
from megatron_msm.formats.files import write_json_atomic
from slurm.jobs.queue import cancel, query_jobs

_FILE = "submitted.json"
_PATIENCE_S = 10


class Submitted(Section):
    """A job that was started."""

    backend: Literal["slurm", "local"]
    job_id: str
    """SLURM's id, or the process id of submitit's controller."""
    host: str
    logs: Path
    """Folder with `JOB_RANK_log.out` files."""

    def is_live(self) -> bool:
        """Whether the job waits or runs. A local job of another host counts as ended."""
        if self.backend == "slurm":
            known = query_jobs([self.job_id]).get(self.job_id)
            return known is not None and known.is_live
        return self.host == socket.gethostname() and _runs_here(self.job_id, self.logs)

    def cancel(self) -> None:
        """End the job; a training job saves first, as far as SLURM gives it the time."""
        if self.backend == "slurm":
            cancel([self.job_id])
        else:
            os.kill(int(self.job_id), signal.SIGTERM)


def read_submitted(folder: Path) -> Submitted | None:
    """Return the folder's newest job, or None when none was started."""
    path = folder / _FILE
    if not path.exists():
        return None
    return Submitted.model_validate(orjson.loads(path.read_bytes()))


def write_submitted(folder: Path, submitted: Submitted) -> None:
    """Remember the folder's newest job."""
    write_json_atomic(folder / _FILE, submitted.model_dump(mode="json"))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; waits for another holder, and says so when it takes long."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = SoftFileLock(str(folder / ".lock"), poll_interval=0.2)
    try:
        lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        sys.stderr.write(
            f"waiting    for {lock.lock_file}, held by process {lock.pid} of the host named in it; "
            "remove it if that process is gone\n"
        )
        lock.acquire(timeout=-1)
    try:
        yield
    finally:
        lock.release()


def _runs_here(job_id: str, logs: Path) -> bool:
    """Whether the process exists and is the controller of that folder (ids are used again)."""
    if not job_id.isdigit():
        return False
    try:
        os.kill(int(job_id), 0)
        command = Path(f"/proc/{job_id}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(logs) in command
