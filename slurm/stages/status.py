"""How far each stage of an experiment is, from its folder and from SLURM."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from megatron_msm.config.section import Section
from megatron_msm.formats.metrics_file import read_last_steps
from slurm.jobs.attempts import Attempt, read_attempts
from slurm.jobs.job import JOB_FILE, read_job
from slurm.jobs.logs import last_lines
from slurm.jobs.queue import QueuedJob, query_jobs
from slurm.jobs.submitted import Submitted, read_submitted
from slurm.kinds import KINDS
from slurm.stages.facts import FACTS_FILE
from slurm.stages.graph import job_folder
from slurm.stages.keeping import is_dropped
from slurm.stages.record import StageRecord, read_done, read_stage

State = Literal["finished", "running", "queued", "stopped", "failed", "blocked", "not started"]
_STEPS_FOR_ETA = 20


class StageStatus(Section):
    """One stage's line of the table."""

    label: str
    folder: Path
    state: State
    detail: str = ""
    """Why it waits or failed."""
    job_id: str | None = None
    step: int | None = None
    num_steps: int | None = None
    loss: float | None = None
    seconds_left: float | None = None
    seconds: float = 0.0
    """For how long it has run so far, over all attempts."""
    gpu_hours: float = 0.0
    """Hours times the GPUs that its job holds, so far."""
    gpu_hours_left: float | None = 0.0
    """That training is still to take; None where it is not known."""
    logs: Path | None = None
    tail: tuple[str, ...] = ()
    """The last lines of a failed stage."""


def all_statuses(
    root: Path, labels: Mapping[Path, str], gpu_hours: Mapping[Path, float] | None = None
) -> list[StageStatus]:
    """Return the status of every stage, in their order.

    Args:
        root: The experiment's folder.
        labels: What people call each stage, by its folder below `root`; in an order in which they
            can run.
        gpu_hours: What training stages were estimated to need, by folder.
    """
    jobs = {folder: read_submitted(job_folder(root, folder)) for folder in labels}
    asked = [
        job.job_id
        for folder, job in jobs.items()
        if job and job.backend == "slurm" and read_done(root / folder) is None
    ]
    queue = query_jobs(asked)
    found: dict[Path, StageStatus] = {}
    for folder, label in labels.items():
        found[folder] = _status(root, folder, label, jobs[folder], queue, found)
    planned = gpu_hours or {}
    return [_with_hours(root, each, planned.get(each.folder)) for each in found.values()]


def _with_hours(root: Path, status: StageStatus, planned: float | None) -> StageStatus:
    """Add what the stage has cost, and what it is still to cost.

    What its own steps have taken says more than the estimate.
    """
    job = job_folder(root, status.folder)
    num_gpus = read_job(job / JOB_FILE).num_gpus if (job / JOB_FILE).exists() else 0
    ended = read_attempts(job)
    seconds = sum(attempt.seconds for attempt in ended)
    if status.state == "running":
        seconds += _seconds_of_attempt(root / status.folder, ended)
    kind = status.folder.name.partition("-")[0]
    left = planned
    if status.state == "finished" or not KINDS[kind].has_ranks:
        left = 0.0
    elif status.seconds_left is not None and num_gpus:
        left = status.seconds_left * num_gpus / 3600
    hours = {"seconds": seconds, "gpu_hours": seconds * num_gpus / 3600, "gpu_hours_left": left}
    return status.model_copy(update=hours)


def _seconds_of_attempt(folder: Path, ended: Sequence[Attempt]) -> float:
    """Return for how long the attempt runs that has not ended yet."""
    path = folder / FACTS_FILE  # written when it begins; until then it is an earlier one's
    if not path.exists() or (ended and path.stat().st_mtime < ended[-1].ended_unix_s):
        return 0.0
    return max(time.time() - path.stat().st_mtime, 0.0)


def _status(
    root: Path,
    folder: Path,
    label: str,
    job: Submitted | None,
    queue: dict[str, QueuedJob],
    earlier: dict[Path, StageStatus],
) -> StageStatus:
    if not (root / folder / "stage.json").exists():
        return StageStatus(label=label, folder=folder, state="not started")
    stage = read_stage(root / folder)
    known = {"label": label, "folder": folder, "num_steps": stage.num_steps}
    if job is not None:
        known |= {"job_id": job.job_id, "logs": job.logs}
    if read_done(root / folder) is not None:
        detail = "checkpoint dropped (keep: exports)" if is_dropped(root / folder) else ""
        progress = _progress(root / folder, stage)
        return StageStatus(**known, **progress, state="finished", detail=detail)
    bad = [n for n in stage.before if (s := earlier.get(n.folder)) and s.state in _BROKEN]
    if bad:
        return StageStatus(**known, state="blocked", detail=f"needs {earlier[bad[0].folder].label}")
    if job is None:
        return StageStatus(**known, state="not started")
    attempts = [a for a in read_attempts(job_folder(root, folder)) if a.job_id == job.job_id]
    queued = queue.get(job.job_id) if job.backend == "slurm" else None
    if queued.is_live if queued else job.backend == "local" and job.is_live():
        waits = queued is not None and queued.state == "PENDING"
        detail = _live_detail(queued, attempts)
        progress = _progress(root / folder, stage)
        return StageStatus(
            **known, **progress, state="queued" if waits else "running", detail=detail
        )
    if _was_stopped(queued, attempts):
        return StageStatus(**known, state="stopped", detail="run the experiment again to go on")
    return StageStatus(**known, **_failure(queued, attempts, job), state="failed")


_BROKEN: tuple[State, ...] = ("failed", "blocked", "stopped")


def _was_stopped(queued: QueuedJob | None, attempts: Sequence[Attempt]) -> bool:
    """Whether somebody ended the job, and nothing is wrong with it."""
    if queued is not None and queued.state == "CANCELLED":
        return True
    return bool(attempts) and attempts[-1].kind in ("preempted", "time-limit")


def _live_detail(queued: QueuedJob | None, attempts: Sequence[Attempt]) -> str:
    parts = [queued.reason or queued.nodes] if queued is not None else []
    if attempts:
        parts.append(f"start {attempts[-1].restart + 2}, after {attempts[-1].kind}")
    return "; ".join(part for part in parts if part)


def _failure(
    queued: QueuedJob | None, attempts: Sequence[Attempt], job: Submitted
) -> dict[str, object]:
    """Return why a job failed; of one that ended before our code began, what its log says."""
    failure = attempts[-1].failure if attempts else None
    if failure is None:
        word = queued.state if queued is not None else "ended"
        log = job.logs / f"{job.job_id}_0_log.out"
        lines = last_lines(log, 5) if log.exists() else []
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return {"detail": f"{word}: {said or 'without saying why'}", "tail": tuple(lines)}
    return {
        "detail": f"{failure.kind}: {failure.reason} {failure.remedy}",
        "tail": attempts[-1].tail[-5:],
    }


def _progress(folder: Path, stage: StageRecord) -> dict[str, object]:
    """Return step, loss and seconds left of a training stage."""
    metrics_file = KINDS[stage.kind].metrics_file
    path = folder / (metrics_file or "")
    if metrics_file is None or not path.exists():
        return {}
    steps = read_last_steps(path, _STEPS_FOR_ETA)
    if not steps:
        return {}
    step = steps[-1].step
    progress: dict[str, object] = {"step": step, "loss": steps[-1].loss}
    if stage.num_steps is not None:
        per_step = sum(each.step_s or 0.0 for each in steps) / len(steps)
        progress["seconds_left"] = max(stage.num_steps - step, 0) * per_step
    return progress
