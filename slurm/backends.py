"""Where jobs run: in this process, in processes of this machine, or on a cluster.

All three are submitit's executors, and all three run the same function with the path of a job file
(`slurm.worker`). In this process one job runs at a time, at once; on this machine jobs run beside
each other; SLURM keeps jobs and their order when the client is gone.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from megatron_msm.errors import ConfigError
from slurm.job import Job, write_job
from slurm.sbatch import build_executor, logs_folder
from slurm.site import SiteConfig
from slurm.worker import run_job


class Backend(Protocol):
    """Starts jobs."""

    def submit(self, jobs: Sequence[Job], *, after: Sequence[str] = ()) -> list[str]:
        """Start jobs that share what they ask for; return their ids.

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

    def submit(self, jobs: Sequence[Job], *, after: Sequence[str] = ()) -> list[str]:
        """Run the jobs one after the other."""
        ids = []
        for job in jobs:
            write_job(job)
            started = submitit.DebugExecutor(logs_folder(job.folder)).submit(run_job, str(job.path))
            ids.append(started.job_id)
            try:
                started.result()
            except SystemExit:
                break  # recorded as the job's attempt
        return ids

    def wait(self, job_id: str) -> None:
        """Return at once."""


class LocalBackend:
    """Runs each job as processes of this machine, which go on when the client is gone."""

    def __init__(self) -> None:
        self._jobs: dict[str, Any] = {}

    def submit(self, jobs: Sequence[Job], *, after: Sequence[str] = ()) -> list[str]:
        """Start the jobs; those in `after` must have been waited for."""
        ids = []
        for job in jobs:
            write_job(job)
            executor = submitit.LocalExecutor(logs_folder(job.folder))
            executor.update_parameters(
                # submitit's is a limit of its own; a job here has only the one it was given.
                timeout_min=job.time_min or 60 * 24 * 365,
                signal_delay_s=job.signal_delay_s,
                stderr_to_stdout=True,
                **_visible_gpus(),
            )
            started = executor.submit(run_job, str(job.path))
            self._jobs[started.job_id] = started
            ids.append(started.job_id)
        return ids

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

    def submit(self, jobs: Sequence[Job], *, after: Sequence[str] = ()) -> list[str]:
        """Submit one job, or an array of several of which `max_running` run at once."""
        for job in jobs:
            write_job(job)
        executor = build_executor(jobs[0], self.site, after=after)
        try:
            if len(jobs) == 1:
                return [executor.submit(run_job, str(jobs[0].path)).job_id]
            with executor.batch():
                started = [executor.submit(run_job, str(job.path)) for job in jobs]
            return [job.job_id for job in started]
        except (FailedJobError, FailedSubmissionError) as error:
            raise ConfigError(f"sbatch refused the job: {error}") from None

    def wait(self, job_id: str) -> None:
        """Return when SLURM has ended the job."""
        from slurm.queue import wait_until_ended

        wait_until_ended(job_id)


def _visible_gpus() -> dict[str, Any]:
    """Let a local job see what this process sees; submitit hides all GPUs otherwise."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        devices = [int(part) for part in named.split(",") if part.isdigit()]
        return {"gpus_per_node": len(devices), "visible_gpus": devices}
    count = sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))
    return {"gpus_per_node": count}
