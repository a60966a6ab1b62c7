"""Run the stages of a graph: here, one after the other, or on SLURM, all queued at once.

Finished stages are passed over, torn ones run again, and what cannot run for the failure of another
is left. Two runs of one graph at the same time share the work: a stage is started under the lock of
its folder, and whoever waits for the lock finds it finished or running.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

from slurm.jobs.attempts import read_attempts
from slurm.jobs.backends import Backend, SlurmBackend
from slurm.jobs.job import Job
from slurm.jobs.queue import query_jobs
from slurm.jobs.site import SiteConfig
from slurm.jobs.submitted import locked, read_submitted, write_submitted
from slurm.stages.record import is_finished
from slurm.stages.stage import Stage

Event = Literal[
    "finished before", "running", "done", "failed", "not run", "queued", "waits already"
]
OnEvent = Callable[[Stage, Event, str], None]
_POLL_S = 2.0


def stage_job(root: Path, stage: Stage, site: SiteConfig) -> Job:
    """Return the job that runs a stage below `root`."""
    resources = site.resources(stage.kind)
    return Job(
        name=re.sub(r"[^\w.+()=-]+", "-", stage.label),
        kind=stage.kind,
        module="slurm.stages.run_stage",
        arguments=(str(root / stage.folder),),
        cwd=root,
        folder=job_folder(root, stage.folder),
        num_ranks=stage.num_ranks,
        requeue_limit=site.requeue_limit,
        time_min=resources.time_min,
        signal_delay_s=site.signal_delay_s,
    )


def job_folder(root: Path, stage_folder: Path) -> Path:
    """Return where the stage's job keeps its logs and attempts."""
    return root / stage_folder / "job"


def run_here(root: Path, stages: Sequence[Stage], on_event: OnEvent, backend: Backend) -> bool:
    """Run stages in their order on this machine; return whether all are finished."""
    finished: set[str] = set()
    for stage in stages:
        missing = [need for need in stage.before if need.identity not in finished]
        if missing:
            on_event(stage, "not run", f"needs {missing[0].label}")
        elif _run_stage(root, stage, backend, on_event):
            finished.add(stage.identity)
    return len(finished) == len(stages)


def _run_stage(root: Path, stage: Stage, backend: Backend, on_event: OnEvent) -> bool:
    folder = root / stage.folder
    job = stage_job(root, stage, SiteConfig())
    with locked(folder):
        _wait_for_other(job.folder)
        if is_finished(folder, stage.identity):
            on_event(stage, "finished before", "")
            return True
        on_event(stage, "running", "msm " + " ".join(stage.command()))
        stage.write(root)
        started = time.monotonic()
        [started_job] = backend.submit([job])
        write_submitted(job.folder, started_job)
        backend.wait(started_job.job_id)
        if is_finished(folder, stage.identity):
            on_event(stage, "done", f"{time.monotonic() - started:.1f} s")
            return True
    on_event(stage, "failed", failure_text(job.folder))
    return False


def _wait_for_other(folder: Path) -> None:
    """Let a job end that another client started and left."""
    submitted = read_submitted(folder)
    while submitted is not None and submitted.is_live():
        time.sleep(_POLL_S)


def failure_text(folder: Path) -> str:
    """Return why the job in `folder` failed last, what to do, and its last lines."""
    attempts = read_attempts(folder)
    failure = attempts[-1].failure if attempts else None
    if failure is None:
        return f"ended without saying why; its logs are in {folder / 'logs'}"
    lines = "".join(f"\n    {line}" for line in attempts[-1].tail[-8:])
    return f"{failure.kind}: {failure.reason}\n  {failure.remedy}{lines}"


def queue_all(root: Path, stages: Sequence[Stage], site: SiteConfig, on_event: OnEvent) -> None:
    """Hand every unfinished stage to SLURM, each after the jobs it needs."""
    backend = SlurmBackend(site)
    jobs: dict[str, str] = {}
    with locked(root):
        live = _live_jobs(root, stages)
        for batch in _batches(stages):
            to_submit = [s for s in batch if not _is_settled(root, s, live, jobs, on_event)]
            if not to_submit:
                continue
            for stage in to_submit:
                stage.write(root)
            needs = {need.identity for stage in to_submit for need in stage.before}
            requests = [stage_job(root, stage, site) for stage in to_submit]
            after = _whole_jobs(jobs[identity] for identity in needs if identity in jobs)
            for stage, started in zip(
                to_submit, backend.submit(requests, after=after), strict=True
            ):
                write_submitted(job_folder(root, stage.folder), started)
                jobs[stage.identity] = started.job_id
                on_event(stage, "queued", f"job {started.job_id}")


def _whole_jobs(job_ids: Iterable[str]) -> list[str]:
    """Name arrays in the place of their elements: a line of thousands is more than sbatch takes."""
    return sorted({job_id.partition("_")[0] for job_id in job_ids})


def _is_settled(
    root: Path, stage: Stage, live: Collection[str], jobs: dict[str, str], on_event: OnEvent
) -> bool:
    """Whether nothing is to be submitted for the stage; notes the job that is making it."""
    if is_finished(root / stage.folder, stage.identity):
        on_event(stage, "finished before", "")
        return True
    submitted = read_submitted(job_folder(root, stage.folder))
    if submitted is None or submitted.job_id not in live:
        return False
    jobs[stage.identity] = submitted.job_id
    on_event(stage, "waits already", f"job {submitted.job_id}")
    return True


def _live_jobs(root: Path, stages: Sequence[Stage]) -> set[str]:
    """Return the jobs of these stages that wait or run, by more than an empty queue's word."""
    started = [read_submitted(job_folder(root, stage.folder)) for stage in stages]
    ids = [each.job_id for each in started if each is not None and each.backend == "slurm"]
    return {job_id for job_id, job in query_jobs(ids).items() if job.is_live}


def _batches(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Put the elements of each array together, where its first one stands."""
    batches: list[list[Stage]] = []
    arrays: dict[str, list[Stage]] = {}
    for stage in stages:
        if stage.group is None:
            batches.append([stage])
        elif stage.group in arrays:
            arrays[stage.group].append(stage)
        else:
            arrays[stage.group] = [stage]
            batches.append(arrays[stage.group])
    return batches
