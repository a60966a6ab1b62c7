"""A lock that is a file, and names who holds it. Whole or not there, on NFS too. No torch.

The file is written aside and hard-linked to its name, which one process alone can do, on local and
network file systems alike. It stays behind when its holder is killed. Then it is taken over where
the holder is certainly gone: a process of this machine that does not exist any more, an earlier
start of the same SLURM job, or a job of this cluster that SLURM says has ended. Of any other
process on another machine nothing is known, and the user decides.
"""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_bytes_atomic
from megatron_msm.slurm_jobs import cluster_name, has_ended

_SLURM_IS_ASKED_EVERY_S = 30.0


class Holder(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    host: str
    pid: int
    started: str
    """When the process began, in the kernel's count: tells it from a later one with its number."""
    machine: str
    """Boot and process namespace: where `pid` means something."""
    job: str | None
    """Number of the SLURM job; None outside one."""
    job_starts: int
    """How often SLURM has started the job anew."""
    cluster: str | None = None
    """The cluster of the job."""
    since: str
    """Local time."""

    def __str__(self) -> str:
        job = f" of SLURM job {self.job}" if self.job else ""
        return f"process {self.pid}{job} on {self.host}, since {self.since}"


@contextlib.contextmanager
def held(path: Path, busy: Callable[[Holder], None]) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: Its file; the folder is there.
        busy: Is called with the holder whenever another process is found to hold it: it waits, or
            raises.

    Raises:
        OSError: The file cannot be made.
        ConfigError: The file names no holder.
    """
    holder = this_process()
    mine = path.with_name(f"{path.name}-{holder.host}-{holder.pid}")
    write_bytes_atomic(mine, orjson.dumps(holder.model_dump(), option=orjson.OPT_INDENT_2))
    try:
        _take(path, mine, holder, busy)
    finally:
        mine.unlink(missing_ok=True)
    try:
        yield
    finally:
        if _read(path) == holder:
            path.unlink(missing_ok=True)


def _take(path: Path, mine: Path, holder: Holder, busy: Callable[[Holder], None]) -> None:
    asked_unix_s = -_SLURM_IS_ASKED_EVERY_S
    while not _linked(mine, path):
        found = _read(path)
        if found is None:  # gone since
            continue
        is_gone = _is_seen_gone(found, holder)
        if not is_gone and time.monotonic() - asked_unix_s >= _SLURM_IS_ASKED_EVERY_S:
            is_gone, asked_unix_s = _job_has_ended(found, holder), time.monotonic()
        if not is_gone:
            busy(found)
        elif _removed(path, found):
            sys.stderr.write(f"lock       taken over from {found}, which is gone\n")


def _removed(path: Path, found: Holder) -> bool:
    """Remove a lock whose holder is gone; of several that find it at once, one does."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        with contextlib.suppress(OSError):  # some file systems have no such locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if _read(path) == found:
            path.unlink()
            return True
    return False


def _linked(mine: Path, path: Path) -> bool:
    try:
        os.link(mine, path)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> Holder | None:
    try:
        return Holder.model_validate(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise ConfigError(
            f"{path}: names no holder of the folder: {error}. Make sure that nothing works in it, "
            "and delete the file."
        ) from None


def _is_seen_gone(found: Holder, mine: Holder) -> bool:
    if found.machine == mine.machine:
        return _start_of(found.pid) != found.started
    return found.job is not None and found.job == mine.job and found.job_starts < mine.job_starts


def _job_has_ended(found: Holder, mine: Holder) -> bool:
    """Whether SLURM says so; never of a process that can be looked for here."""
    if found.job is None or found.cluster is None or found.machine == mine.machine:
        return False
    return found.cluster == (mine.cluster or cluster_name()) and has_ended(found.job)


def this_process() -> Holder:
    """Return this process as a holder."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_start_of(os.getpid()),
        machine=_machine(),
        job=os.environ.get("SLURM_JOB_ID"),
        job_starts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        cluster=os.environ.get("SLURM_CLUSTER_NAME"),
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _start_of(pid: int) -> str:
    """Return when a process of this machine began; empty when there is none, or none but remains.

    Source: proc_pid_stat(5): field 3 is the state, field 22 the start in clock ticks since boot.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else started


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {os.getpid()}"  # not Linux: nobody is known to be gone
