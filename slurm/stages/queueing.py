"""Hand the unfinished stages of a graph to SLURM, all at once or as a limit of jobs lets them.

Without a limit all are queued, each after the jobs that it needs. With `max_queued` (site file)
stages that can start come first, and whoever called this stays until the last one is queued: it
looks every few seconds whether jobs have ended. It keeps nothing to itself, so it can be killed at
any time, and another run goes on.
"""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from slurm.jobs.backends import QueueFullError, SlurmBackend
from slurm.jobs.queue import count_queued, query_jobs
from slurm.jobs.site import SiteConfig
from slurm.jobs.submitted import locked, read_submitted
from slurm.stages.graph import Event, OnEvent, failure_text, job_folder, stage_job
from slurm.stages.keeping import is_dropped, remade
from slurm.stages.record import is_finished
from slurm.stages.stage import Stage

_POLL_S = 10.0
_VISIBLE_WITHIN_S = 60.0
"""A shared file system may show a result later than SLURM the end of its job."""


def queue_all(
    root: Path,
    stages: Sequence[Stage],
    site: SiteConfig,
    on_event: OnEvent,
    *,
    wanted: Callable[[], Collection[Path]] | None = None,
) -> None:
    """Hand every unfinished stage to SLURM; return when none is left to be queued.

    Args:
        root: Where the stages are.
        stages: Each after those that it needs.
        site: The cluster.
        on_event: Is told what becomes of each.
        wanted: Asked before jobs are queued: the folders of stages that still are to be. Left out:
            all are.

    Raises:
        ConfigError: sbatch refused a job.
    """
    queueing, was_told = _Queueing(root, stages, site, on_event, wanted), False
    while num_left := queueing.submit_what_may():
        if not was_told:
            sys.stderr.write(
                f"waiting    {num_left} stages are queued as others end (max_queued "
                f"{site.max_queued}); keep this running, or run it again to go on\n"
            )
            was_told = True
        time.sleep(_POLL_S)


@dataclass(frozen=True)
class Batch:
    """Stages that are submitted together."""

    stages: list[Stage]
    is_one_job: bool = False
    """One after the other in a single job; else each is a job, or an element of an array."""

    @property
    def num_jobs(self) -> int:
        """As a limit of jobs counts them."""
        return 1 if self.is_one_job else len(self.stages)


class _Queueing:
    """What is known of each stage while they are queued."""

    def __init__(
        self,
        root: Path,
        stages: Sequence[Stage],
        site: SiteConfig,
        on_event: OnEvent,
        wanted: Callable[[], Collection[Path]] | None,
    ) -> None:
        self._root = root
        self._site = site
        self._backend = SlurmBackend(site)
        self._tell = on_event
        self._wanted = wanted
        self._again = remade(root, stages)
        self._finished = {s.identity for s in stages if self._is_finished(s)}
        self._left = [stage for stage in stages if stage.identity not in self._finished]
        self._jobs: dict[str, str] = {}
        """Jobs that wait or run, by the identity of their stage."""
        self._ended: dict[str, float] = {}
        """When a job was seen to have ended without a result."""
        self._past: set[str] = set()
        """Jobs of earlier runs that have ended: SLURM is asked about each of them once."""
        self._broken: set[str] = set()
        """Stages that failed meanwhile, or need one that did."""
        for stage in stages:
            if stage.identity in self._finished:
                on_event(stage, "finished before", "")

    def submit_what_may(self) -> int:
        """Queue what the limit lets through; return how many stages are still to be queued."""
        with locked(self._root):
            self._look()
            self._give_up_cancelled()
            waiting = self._waiting()
            try:
                self._submit(waiting)
            except QueueFullError:
                if self._site.max_queued is None or not count_queued():
                    raise
        return len(self._waiting())

    def _is_finished(self, stage: Stage) -> bool:
        folder = self._root / stage.folder
        is_unmade = stage.identity in self._again and is_dropped(folder)
        return not is_unmade and is_finished(folder, stage.identity)

    def _waiting(self) -> list[Stage]:
        return [stage for stage in self._left if stage.identity not in self._jobs]

    def _look(self) -> None:
        """Find out what waits, runs, or has ended since."""
        started = {s.identity: read_submitted(job_folder(self._root, s.folder)) for s in self._left}
        ids = {k: job.job_id for k, job in started.items() if job and job.backend == "slurm"}
        known = query_jobs([job_id for job_id in ids.values() if job_id not in self._past])
        live = {job_id for job_id, job in known.items() if job.is_live}
        self._past |= set(ids.values()) - live - set(self._jobs.values())
        for stage in list(self._left):
            job_id = ids.get(stage.identity, "")
            job = known.get(job_id)
            if job is not None and job.is_live:
                if stage.identity not in self._jobs:
                    self._jobs[stage.identity] = job_id
                    self._tell(stage, "waits already", f"job {job_id}")
                self._ended.pop(stage.identity, None)
                continue
            broken = [need for need in stage.before if need.identity in self._broken]
            if broken:
                self._give_up(stage, "not run", f"needs {broken[0].label}")
            elif stage.identity in self._jobs:
                self._note_end(stage, was_well=job is None or job.state == "COMPLETED")

    def _give_up_cancelled(self) -> None:
        """Forget what was cancelled since: stages without a job, or whose job has ended."""
        if self._wanted is None:
            return
        wanted = self._wanted()
        for stage in [stage for stage in self._left if stage.folder not in wanted]:
            if stage.identity not in self._jobs or stage.identity in self._ended:
                self._give_up(stage, "cancelled", "")

    def _note_end(self, stage: Stage, *, was_well: bool) -> None:
        if self._is_finished(stage):
            self._settle(stage, "done")
            return
        since = self._ended.setdefault(stage.identity, time.monotonic())
        # A job that starts again may be seen in between.
        patience_s = _VISIBLE_WITHIN_S if was_well else 2 * _POLL_S
        if time.monotonic() - since > patience_s:
            reason = failure_text(job_folder(self._root, stage.folder))
            self._give_up(stage, "failed", reason)

    def _settle(self, stage: Stage, event: Event) -> None:
        self._finished.add(stage.identity)
        self._left.remove(stage)
        self._jobs.pop(stage.identity, None)
        self._tell(stage, event, "")

    def _give_up(self, stage: Stage, event: Event, why: str) -> None:
        self._broken.add(stage.identity)
        self._left.remove(stage)
        self._jobs.pop(stage.identity, None)
        self._tell(stage, event, why)

    def _submit(self, waiting: Sequence[Stage]) -> None:
        room = self._room()
        if room is not None:
            waiting = sorted(waiting, key=lambda stage: not self._is_ready(stage))
        for batch in batches(waiting, joins_evaluations=self._site.join_evaluations):
            if not batch.is_one_job:
                batch = replace(batch, stages=batch.stages[:room])
            if batch.stages and room != 0 and self._has_a_place(batch.stages):
                self._submit_batch(batch)
                room = None if room is None else room - batch.num_jobs

    def _room(self) -> int | None:
        limit = self._site.max_queued
        return None if limit is None else max(limit - count_queued(), 0)

    def _is_ready(self, stage: Stage) -> bool:
        return all(need.identity in self._finished for need in stage.before)

    def _has_a_place(self, batch: Sequence[Stage]) -> bool:
        """Whether everything these stages need is finished or queued."""
        return _outer_needs(batch) <= self._finished | self._jobs.keys()

    def _submit_batch(self, batch: Batch) -> None:
        needs = _outer_needs(batch.stages)
        after = _whole_jobs(self._jobs[identity] for identity in needs if identity in self._jobs)
        with ExitStack() as locks:
            # Somebody may be running one of them without SLURM.
            for stage in batch.stages:
                locks.enter_context(locked(self._root / stage.folder))
            new = [stage for stage in batch.stages if not self._is_finished(stage)]
            for stage in new:
                stage.write(self._root)
            requests = [stage_job(self._root, stage, self._site) for stage in new]
            is_joined = batch.is_one_job and len(new) > 1
            submit = self._backend.submit_joined if is_joined else self._backend.submit
            started = submit(requests, after=after) if new else []
        for stage, job in zip(new, started, strict=True):
            self._again.discard(stage.identity)  # it may be dropped again before it is looked at
            self._jobs[stage.identity] = job.job_id
            self._tell(stage, "queued", f"job {job.job_id}")
        for stage in batch.stages:
            if stage not in new:
                self._settle(stage, "finished before")


def _whole_jobs(job_ids: Iterable[str]) -> list[str]:
    """Name arrays in the place of their elements: a line of thousands is more than sbatch takes."""
    return sorted({job_id.partition("_")[0] for job_id in job_ids})


def _outer_needs(stages: Sequence[Stage]) -> set[str]:
    """Return what stages need beside one another."""
    return {n.identity for s in stages for n in s.before} - {s.identity for s in stages}


def batches(stages: Sequence[Stage], *, joins_evaluations: bool) -> list[Batch]:
    """Put what is submitted together where the first of it stands."""
    batches: dict[str, Batch] = {}
    for stage in stages:
        model = _exported_model(stage) if joins_evaluations else None
        key = stage.group or model or stage.identity
        batches.setdefault(key, Batch([], is_one_job=model is not None)).stages.append(stage)
    return list(batches.values())


def _exported_model(stage: Stage) -> str | None:
    """Return the identity of the export that a stage is, or that it evaluates."""
    if stage.kind == "export":
        return stage.identity
    exports = [need.identity for need in stage.needs if need.kind == "export"]
    return exports[0] if stage.kind == "eval" and exports else None
