"""What SLURM says of jobs: asked directly, because submitit's own poll backs off to ten minutes.

`squeue` knows jobs that wait or run; of those that have ended see `megatron_msm.slurm_jobs`.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from megatron_msm.errors import ConfigError, MsmError
from megatron_msm.slurm_jobs import ENDED, accounted, state_by_controller

_POLL_S = 2.0
_TIMEOUT_S = 60
_PATIENCE_S = 180
"""A controller that restarts or fails over is away for about a minute."""
_CONTROLLER_AWAY = re.compile(
    r"Unable to contact slurm controller|[Tt]imed out|Connection refused|backup controller"
)


class SlurmCommandError(MsmError):
    """A SLURM command failed or did not answer."""


@dataclass(frozen=True)
class QueuedJob:
    """One job or array element."""

    state: str
    """SLURM's word: PENDING, RUNNING, FAILED, TIMEOUT, CANCELLED, ..."""
    reason: str = ""
    """Why it waits, as SLURM says it: Priority, Dependency, BeginTime, ..."""
    nodes: str = ""
    script: str = ""
    """Path of its batch script, while it waits or runs."""

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in ENDED


def largest_array() -> int:
    """Return how many elements this cluster allows in one array."""
    shown = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run(["scontrol", "show", "config"]), re.M)
    return int(shown.group(1)) if shown else 1


def query_jobs(job_ids: Collection[str]) -> dict[str, QueuedJob]:
    """Return what SLURM knows of these jobs; those it has forgotten are left out.

    Raises:
        SlurmCommandError: squeue failed.
    """
    if not job_ids:
        return {}
    live = _squeue()
    found = {job_id: live[job_id] for job_id in job_ids if job_id in live}
    missing = [job_id for job_id in job_ids if job_id not in found]
    ended = accounted(missing) if missing else {}
    for job_id in missing:
        if job_id in ended:
            found[job_id] = QueuedJob(ended[job_id].state, nodes=ended[job_id].nodes)
            continue
        # An array element that was cancelled before it started has no record of its own.
        whole = job_id.partition("_")[0]
        state = state_by_controller(job_id) or state_by_controller(whole)
        if state is not None:
            found[job_id] = QueuedJob(state)
    return found


def find_by_script(folder: Path, element: int | None) -> str | None:
    """Return the job of the user that waits or runs and whose batch script lies in a folder.

    Args:
        folder: Of the script.
        element: Place in the array, of an element.
    """
    for job_id, job in _squeue().items():
        place = job_id.partition("_")[2]
        if Path(job.script).parent == folder and place == ("" if element is None else str(element)):
            return job_id
    return None


def count_queued() -> int:
    """Return how many jobs of the user wait or run on this cluster, each array element as one."""
    return len(_squeue())


def check_dependency(job_id: str, *, any_end: bool) -> bool:
    """Return whether a job must still be waited for.

    Args:
        job_id: The job to start after.
        any_end: It may end in any way; else it must end well.

    Raises:
        ConfigError: SLURM does not know it, or it has ended other than well.
    """
    job = query_jobs([job_id]).get(job_id)
    if job is None:
        raise ConfigError(
            f"--after {job_id}: SLURM knows no such job. Ended jobs are forgotten after some "
            "minutes where a cluster keeps no accounts: if it ended well, leave --after out."
        )
    if job.is_live:
        return True
    if job.state != "COMPLETED" and not any_end:
        raise ConfigError(
            f"--after {job_id}: this job has ended as {job.state}. Submit it again, or write "
            f"--after {job_id}:any to start whatever became of it."
        )
    return False


def wait_until_ended(job_id: str) -> None:
    """Return when the job neither waits nor runs."""
    while (job := query_jobs([job_id]).get(job_id)) is not None and job.is_live:
        time.sleep(_POLL_S)


def cancel(job_ids: Collection[str]) -> None:
    """Cancel jobs."""
    _run(["scancel", *job_ids])


def _squeue() -> dict[str, QueuedJob]:
    shown = _run(["squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r|%N|%o"])
    jobs = {}
    for line in shown.splitlines():
        job_id, state, reason, nodes, script = line.strip().split("|", 4)
        jobs[job_id] = QueuedJob(state, "" if reason == "None" else reason, nodes, script)
    return jobs


def _run(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        raise SlurmCommandError(f"{command[0]}: not found. Run this where SLURM's commands are.")
    started, was_told = time.monotonic(), False
    while True:
        answer, error = _try(command)
        if answer is not None:
            return answer
        if not _CONTROLLER_AWAY.search(error) or time.monotonic() - started > _PATIENCE_S:
            raise SlurmCommandError(f"{' '.join(command)}: {error}")
        if not was_told:
            sys.stderr.write(f"waiting    for SLURM's controller: {error}\n")
            was_told = True
        time.sleep(_POLL_S)


def _try(command: list[str]) -> tuple[str | None, str]:
    """Return (what it prints, "") or (None, its error)."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return None, f"timed out after {_TIMEOUT_S} s. Is the controller up? Try again."
    return (None, done.stderr.strip()) if done.returncode else (done.stdout, "")
