"""Which job was started last for a folder, and the lock under which one is started.

It is written down twice: before the job is started, without its id, and after. So a job that was
started by a client which was killed in between is found, by the script or the program that it runs.

The lock is a file that names its holder (`megatron_msm.formats.lock_file`).
"""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import orjson

from megatron_msm.config.section import Section
from megatron_msm.formats.files import write_json_atomic
from megatron_msm.formats.lock_file import Holder, held
from slurm.jobs.queue import cancel, find_by_script, query_jobs

SUBMITTED_FILE = "submitted.json"
_LOCK_FILE = ".lock"
_POLL_S = 0.2
_PATIENCE_S = 10.0


class Submitted(Section):
    """A job that was started."""

    backend: Literal["slurm", "local"]
    job_id: str
    """SLURM's id, or the process id of submitit's controller. Empty while it is being started."""
    host: str
    logs: Path
    """Folder with `JOB_RANK_log.out` files, and the script of a SLURM job."""
    element: int | None = None
    """Its place in an array."""

    def is_live(self) -> bool:
        """Whether the job waits or runs. A local job of another host counts as ended."""
        if self.backend == "slurm":
            known = query_jobs([self.job_id]).get(self.job_id)
            return known is not None and known.is_live
        return self.host == socket.gethostname() and _process_of(self.logs) is not None

    def cancel(self) -> None:
        """End the job; a training job saves first, as far as SLURM gives it the time."""
        if self.backend == "slurm":
            cancel([self.job_id])
        else:
            os.kill(int(self.job_id), signal.SIGTERM)


def read_submitted(folder: Path) -> Submitted | None:
    """Return the folder's newest job, or None when none was started."""
    path = folder / SUBMITTED_FILE
    if not path.exists():
        return None
    found = Submitted.model_validate(orjson.loads(path.read_bytes()))
    if found.job_id:
        return found
    job_id = _started_nevertheless(found)
    return None if job_id is None else found.model_copy(update={"job_id": job_id})


def _started_nevertheless(submitted: Submitted) -> str | None:
    """Return the id of a job whose client was killed before it could write it down."""
    if submitted.backend == "slurm":
        return find_by_script(submitted.logs, submitted.element)
    return _process_of(submitted.logs) if submitted.host == socket.gethostname() else None


def write_submitted(folder: Path, submitted: Submitted) -> None:
    """Remember the folder's newest job."""
    write_json_atomic(folder / SUBMITTED_FILE, submitted.model_dump(mode="json"))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; waits for another holder, and says so when it takes long."""
    folder.mkdir(parents=True, exist_ok=True)
    path, started, was_told = folder / _LOCK_FILE, time.monotonic(), False

    def wait(holder: Holder) -> None:
        nonlocal was_told
        if not was_told and time.monotonic() - started > _PATIENCE_S:
            was_told = True
            sys.stderr.write(
                f"waiting    for {holder}, which works in {folder}; if that process is certainly "
                f"gone, delete {path}\n"
            )
        time.sleep(_POLL_S)

    with held(path, wait):
        yield


def _process_of(logs: Path) -> str | None:
    """Return the process on this host that runs, or watches, the job with these logs."""
    marks = {os.fsencode(logs): b"submitit", os.fsencode(logs.parents[1]): b"slurm.stages"}
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile
            continue
        for folder, program in marks.items():
            if folder in command and any(part.startswith(program) for part in command):
                return process.name
    return None
