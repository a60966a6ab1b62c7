"""What an experiment shows that runs on this machine: which stage of how many, and how far it is.

A stage is a process of its own there, whose output goes to its log. So its newest line is shown: of
long work that is a line of progress, with the time left.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from rich.console import Console

from megatron_msm.progress import Progress, show_progress
from slurm.experiments.experiment_file import StartedExperiment
from slurm.jobs.logs import last_lines
from slurm.jobs.submitted import read_submitted
from slurm.stages.graph import Event, job_folder
from slurm.stages.stage import Stage

_LOOK_EVERY_S = 1.0


class LocalScreen:
    """Tells of the stages of one run of an experiment."""

    def __init__(
        self, root: Path, stages: Sequence[Stage], started: StartedExperiment, console: Console
    ) -> None:
        """Count the stages.

        Args:
            root: Where they are.
            stages: All of them, in their order.
            started: The experiment.
            console: Where progress is shown.
        """
        self._root, self._console = root, console
        self._place = {stage.identity: f"{n}/{len(stages)}" for n, stage in enumerate(stages, 1)}
        self._num_arms = Counter(folder for arm in started.arms for folder in arm.stages)
        self.running: Stage | None = None
        """The stage that is under way."""

    def tell(self, stage: Stage, event: Event, detail: str) -> None:
        """Say what became of a stage."""
        name = stage.label
        num_arms = self._num_arms[stage.folder]
        if event == "running" and num_arms > 1:
            name = f"{name} (shared by {num_arms} arms)"
        typer.echo(f"{self._place[stage.identity]:>7} {event:<15} {name:<40} {detail}".rstrip())

    @contextlib.contextmanager
    def watching(self, stage: Stage) -> Iterator[None]:
        """Show the newest line of the stage's log while the block waits for its end."""
        self.running = stage
        has_ended = threading.Event()
        name = f"{self._place[stage.identity]} {stage.label}"
        with show_progress(self._console) as progress, progress.waiting(name):
            watcher = threading.Thread(
                target=self._watch, args=(stage, progress, has_ended), daemon=True
            )
            watcher.start()
            try:
                yield
            finally:
                has_ended.set()
                watcher.join()
        self.running = None

    def _watch(self, stage: Stage, progress: Progress, has_ended: threading.Event) -> None:
        shown = ""
        while not has_ended.wait(_LOOK_EVERY_S):
            line = self._newest_line(stage)
            if line and line != shown:
                progress.note(line)
                shown = line

    def _newest_line(self, stage: Stage) -> str:
        job = read_submitted(job_folder(self._root, stage.folder))
        log = None if job is None else job.logs / f"{job.job_id}_0_log.out"
        if log is None or not log.exists():
            return ""
        return next((line for line in reversed(last_lines(log, 5)) if line.strip()), "").strip()
