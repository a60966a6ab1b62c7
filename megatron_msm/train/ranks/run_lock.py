"""OUT/_lock.json: who trains in a run folder. Two jobs never do. No torch.

The file is written aside and hard-linked to its name, which one process alone can do, on local and
network file systems alike. It stays behind when its holder is killed. Then it is taken over where
the holder is certainly gone: a process of this machine that does not exist any more, or an earlier
start of the same SLURM job. Of another machine's process nothing is known, and the user decides.
"""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_bytes_atomic

LOCK_FILE = "_lock.json"
"""No phase can have such a name."""


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
    since: str
    """Local time."""

    def __str__(self) -> str:
        job = f" of SLURM job {self.job}" if self.job else ""
        return f"process {self.pid}{job} on {self.host}, since {self.since}"


@contextlib.contextmanager
def run_lock(out: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made where it is missing.

    Raises:
        ConfigError: Another process holds it; the message names it.
    """
    path, holder = out / LOCK_FILE, this_process()
    mine = out / f"{LOCK_FILE}-{holder.host}-{holder.pid}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(mine, orjson.dumps(holder.model_dump(), option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise _not_writable(out, error) from None
    try:
        _take(path, mine, holder)
    finally:
        mine.unlink(missing_ok=True)
    try:
        yield
    finally:
        if _read(path) == holder:
            path.unlink(missing_ok=True)


def _take(path: Path, mine: Path, holder: Holder) -> None:
    while not _linked(mine, path):
        found = _read(path)
        if found is None:  # gone since
            continue
        if not _is_gone(found, holder):
            raise ConfigError(
                f"out: {path.parent} is being trained in by {found}. Wait for its end, stop it, or "
                f"choose another `out` folder. If it is certainly gone, delete {path}."
            )
        if _removed(path, found):
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
    except OSError as error:
        raise _not_writable(path.parent, error) from None
    return True


def _not_writable(out: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"out: {out} cannot be used: {error}. Choose a folder that can be written, on a file "
        "system with hard links."
    )


def _read(path: Path) -> Holder | None:
    try:
        return Holder.model_validate(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise ConfigError(
            f"{path}: names no holder of the run folder: {error}. Make sure that nothing trains in "
            "it, and delete the file."
        ) from None


def _is_gone(found: Holder, mine: Holder) -> bool:
    if found.machine == mine.machine:
        return _start_of(found.pid) != found.started
    return found.job is not None and found.job == mine.job and found.job_starts < mine.job_starts


def this_process() -> Holder:
    """Return this process as a holder."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_start_of(os.getpid()),
        machine=_machine(),
        job=os.environ.get("SLURM_JOB_ID"),
        job_starts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
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
