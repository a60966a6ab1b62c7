"""Where jobs run: in this process, in processes of this machine, or on a cluster.

All three are submitit's executors, and all three run the same function with the path of a job file
(`slurm.jobs.worker`). In this process one job runs at a time, at once; on this machine jobs run
beside each other; SLURM keeps jobs and their order when the client is gone.
"""

import contextlib
import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from megatron_msm.errors import ConfigError
from megatron_msm.own_packages import SAFE_PATH
from slurm.jobs.job import Job, write_job
from slurm.jobs.queue import largest_array, wait_until_ended
from slurm.jobs.sbatch import build_executor, logs_folder
from slurm.jobs.site import SiteConfig
from slurm.jobs.submitted import Submitted, write_submitted
from slurm.jobs.worker import run_job, run_jobs

_QUEUE_FULL = re.compile(r"MaxSubmitJob|GrpSubmitJob|job submit limit")


class QueueFullError(ConfigError):
    """A limit of jobs that wait or run at once is reached."""


class Backend(Protocol):
    """Starts jobs, and writes into each one's folder which it is."""

    def submit(self, jobs: Sequence[Job], *, after: Sequence[str] = ()) -> list[Submitted]:
        """Start jobs that share what they ask for.

        Args:
            jobs: More than one become an array where there are arrays.
            after: Ids of jobs that must have ended well before.
        """
        ...

    def wait(self, job_id: str) -> None:
        """Return when the job has ended, well or not; its attempts tell which."""
        ...


class InProcessBackend:
    """Runs each job's program as a child of this process, within `submit`."""

    def submit(self, jobs: Sequence[Job], *, after: Sequence[str] = ()) -> list[Submitted]:
        """Run the jobs one after the other."""
        done = []
        for job in jobs:
            write_job(job)
            _announce("local", [job])
            started = submitit.DebugExecutor(logs_folder(job.folder)).submit(run_job, str(job.path))
            done += _record("local", [started.job_id], [job])
            with contextlib.suppress(SystemExit):  # recorded as the job's attempt
                started.result()
        return done

    def wait(self, job_id: str) -> None:
        """Return at once."""


class LocalBackend:
    """Runs each job as processes of this machine, which go on when the client is gone."""

    def __init__(self) -> None:
        self._jobs: dict[str, submitit.Job[None]] = {}

    def submit(self, jobs: Sequence[Job], *, after: Sequence[str] = ()) -> list[Submitted]:
        """Start the jobs; those in `after` must have been waited for."""
        running = []
        python = f"{shlex.quote(sys.executable)} {SAFE_PATH}"
        for job in jobs:
            write_job(job)
            executor = submitit.LocalExecutor(logs_folder(job.folder), python=python)
            gpus = visible_gpus()  # submitit hides all of them otherwise
            executor.update_parameters(
                # submitit's is a limit of its own; a job here has only the one it was given.
                timeout_min=job.time_min or 60 * 24 * 365,
                signal_delay_s=job.signal_delay_s,
                stderr_to_stdout=True,
                gpus_per_node=len(gpus),
                visible_gpus=gpus,
            )
            _announce("local", [job])
            started = executor.submit(run_job, str(job.path))
            self._jobs[started.job_id] = started
            running += _record("local", [started.job_id], [job])
        return running

    def wait(self, job_id: str) -> None:
        """Return when the job's processes have ended."""
        self._jobs[job_id].wait()


class SlurmBackend:
    """Hands jobs to SLURM."""

    def __init__(self, site: SiteConfig) -> None:
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "no SLURM on this machine (sbatch was not found). Submit from a login node, or run "
                "here without it: `msm train RUN.yaml`, `msm experiment run GRID.yaml --local`."
            )
        self.site = site

    def submit(self, jobs: Sequence[Job], *, after: Sequence[str] = ()) -> list[Submitted]:
        """Submit one job, or arrays of which `max_running` elements run at once."""
        for job in jobs:
            write_job(job)
        if len(jobs) == 1:
            return self._submit_array(jobs, self.site, after)
        size = largest_array()
        arrays = [jobs[first : first + size] for first in range(0, len(jobs), size)]
        share = max(self.site.max_running // len(arrays), 1)
        site = self.site.model_copy(update={"max_running": share})
        return [started for array in arrays for started in self._submit_array(array, site, after)]

    def submit_joined(self, jobs: Sequence[Job], *, after: Sequence[str] = ()) -> list[Submitted]:
        """Submit jobs of one process each as one, which asks for what the last of them does."""
        for job in jobs:
            write_job(job)
        asks = {"kind": jobs[-1].kind, "changes": jobs[-1].changes}
        whole = jobs[0].model_copy(update=asks)
        executor = build_executor(whole, self.site, after=after)
        _announce("slurm", jobs, is_array=False)
        with _outside_of_jobs(), _refusals():
            started = executor.submit(run_jobs, [str(job.path) for job in jobs])
        return _record("slurm", [started.job_id] * len(jobs), jobs, is_array=False)

    def _submit_array(
        self, jobs: Sequence[Job], site: SiteConfig, after: Sequence[str]
    ) -> list[Submitted]:
        executor = build_executor(jobs[0], site, after=after)
        is_array = len(jobs) > 1
        _announce("slurm", jobs, is_array=is_array)
        with _outside_of_jobs(), _refusals(), executor.batch():
            started = [executor.submit(run_job, str(job.path)) for job in jobs]
        return _record("slurm", [job.job_id for job in started], jobs, is_array=is_array)

    def wait(self, job_id: str) -> None:
        """Return when SLURM has ended the job."""
        wait_until_ended(job_id)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn what sbatch says into a message."""
    try:
        yield
    except (FailedJobError, FailedSubmissionError) as error:
        if _QUEUE_FULL.search(str(error)):
            raise QueueFullError(
                f"SLURM takes no more jobs of yours at once: {error}. Give the limit as "
                "`max_queued` in the site file, and run this again: it queues as jobs end."
            ) from None
        raise ConfigError(f"sbatch refused the job: {error}") from None


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the job that this process may run in: sbatch and srun take options from its variables.

    Outside of jobs SBATCH_* variables are the user's own, and stay.
    """
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        hidden = {
            name: os.environ.pop(name)
            for name in list(os.environ)
            if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"
        }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _announce(
    backend: Literal["slurm", "local"], jobs: Sequence[Job], *, is_array: bool = False
) -> None:
    """Write down that jobs are about to be started: this process may be killed meanwhile."""
    _record(backend, [""] * len(jobs), jobs, is_array=is_array)


def _record(
    backend: Literal["slurm", "local"],
    job_ids: Sequence[str],
    jobs: Sequence[Job],
    *,
    is_array: bool = False,
) -> list[Submitted]:
    # An array has one folder of logs, its first element's.
    host, logs = socket.gethostname(), logs_folder(jobs[0].folder)
    started = []
    for place, (job_id, job) in enumerate(zip(job_ids, jobs, strict=True)):
        element = place if is_array else None
        started.append(
            Submitted(backend=backend, job_id=job_id, host=host, logs=logs, element=element)
        )
        write_submitted(job.folder, started[-1])
    return started


def visible_gpus() -> list[int]:
    """Return the numbers of the GPUs that this process sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [int(part) for part in named.split(",") if part.isdigit()]
    return list(range(sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))))
