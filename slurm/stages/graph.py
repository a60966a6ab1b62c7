"""Run the stages of a graph here, one after the other; `queueing` hands them to SLURM.

Finished stages are passed over, torn ones run again, and what cannot run for the failure of another
is left. Two runs of one graph at the same time share the work: a stage is started under the lock of
its folder, and whoever waits for the lock finds it finished or running.
"""

import contextlib
import re
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

from slurm.jobs.attempts import read_attempts
from slurm.jobs.backends import Backend, visible_gpus
from slurm.jobs.job import Job
from slurm.jobs.sbatch import num_gpus
from slurm.jobs.site import Resources, SiteConfig
from slurm.jobs.submitted import locked, read_submitted
from slurm.stages.keeping import is_dropped, remade
from slurm.stages.record import is_finished
from slurm.stages.stage import Stage

Event = Literal[
    "finished before",
    "running",
    "done",
    "failed",
    "not run",
    "queued",
    "waits already",
    "cancelled",
]
OnEvent = Callable[[Stage, Event, str], None]
Watching = Callable[[Stage], contextlib.AbstractContextManager[object]]
_POLL_S = 2.0


def stage_job(root: Path, stage: Stage, site: SiteConfig) -> Job:
    """Return the job that runs a stage below `root`.

    Raises:
        ConfigError: Its ranks do not fill whole nodes of the site.
    """
    resources = site.resources(stage.kind, stage.resources)
    return Job(
        name=re.sub(r"[^\w.+()=-]+", "-", stage.label),
        kind=stage.kind,
        changes=stage.resources,
        module="slurm.stages.run_stage",
        arguments=(str(root / stage.folder),),
        cwd=root,
        folder=job_folder(root, stage.folder),
        reads=(*(read.path for read in stage.reads), *stage.folders),
        num_gpus=num_gpus(resources, stage.num_ranks or 1),
        num_ranks=stage.num_ranks,
        requeue_limit=site.requeue_limit,
        time_min=resources.time_min,
        signal_delay_s=site.signal_delay_s,
    )


def job_folder(root: Path, stage_folder: Path) -> Path:
    """Return where the stage's job keeps its logs and attempts."""
    return root / stage_folder / "job"


def run_here(
    root: Path,
    stages: Sequence[Stage],
    on_event: OnEvent,
    backend: Backend,
    *,
    wanted: Callable[[], Collection[Path]] | None = None,
    watching: Watching = contextlib.nullcontext,
) -> bool:
    """Run stages in their order on this machine; return whether all are finished.

    Args:
        root: Where the stages are.
        stages: Each after those that it needs.
        on_event: Is told what becomes of each.
        backend: Runs a stage.
        wanted: Asked before each: the folders of stages that still are to be run. Left out: all.
        watching: A context for the time in which a stage runs.
    """
    finished: set[str] = set()
    again = remade(root, stages)
    for stage in stages:
        missing = [need for need in stage.before if need.identity not in finished]
        if wanted is not None and stage.folder not in wanted():
            on_event(stage, "cancelled", "")
        elif missing:
            on_event(stage, "not run", f"needs {missing[0].label}")
        elif _run_stage(root, stage, backend, on_event, watching, stage.identity in again):
            finished.add(stage.identity)
    return len(finished) == len(stages)


def _run_stage(
    root: Path,
    stage: Stage,
    backend: Backend,
    on_event: OnEvent,
    watching: Watching,
    again: bool,
) -> bool:
    folder = root / stage.folder
    job = stage_job(root, stage, SiteConfig(defaults=Resources(gpus=bool(visible_gpus()))))
    with locked(folder):
        _wait_for_other(job.folder)
        if not (again and is_dropped(folder)) and is_finished(folder, stage.identity):
            on_event(stage, "finished before", "")
            return True
        on_event(stage, "running", "msm " + " ".join(stage.command()))
        stage.write(root)
        started = time.monotonic()
        with watching(stage):
            [started_job] = backend.submit([job])
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
