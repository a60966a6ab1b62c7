"""The tables of `msm experiment status`, once or live: a line for each arm, then stages."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from megatron_msm.name_table import NameTable
from slurm.experiments.experiment_file import StartedArm, StartedExperiment
from slurm.stages.status import StageStatus, State, all_statuses

_REFRESH_S = 5.0
_STYLES = {"finished": "green", "running": "cyan", "failed": "red", "blocked": "red"}
# What an arm is, when its stages differ: the first of these that one of them is.
_ORDER: tuple[State, ...] = (
    *("failed", "blocked", "running", "queued", "stopped", "not started", "finished"),
)


class StatusTable:
    """Shows how far an experiment is."""

    def __init__(self, root: Path, started: StartedExperiment, *, all_stages: bool) -> None:
        """Stages that wait or are finished are shown only with `all_stages`."""
        self._root = root
        self._started = started
        self._all_stages = all_stages

    def show(self) -> Sequence[StageStatus]:
        """Print it once; return what was shown."""
        statuses = self._statuses()
        Console(highlight=False).print(self._render(statuses))
        return statuses

    def watch_until_ended(self) -> Sequence[StageStatus]:
        """Keep it on the screen until nothing runs or waits any more; return the last state."""
        with Live(console=Console(highlight=False), auto_refresh=False) as live:
            while True:
                statuses = self._statuses()
                live.update(self._render(statuses), refresh=True)
                if not any(status.state in ("running", "queued") for status in statuses):
                    return statuses
                time.sleep(_REFRESH_S)

    def _statuses(self) -> list[StageStatus]:
        return all_statuses(self._root, self._started.labels, self._started.gpu_hours)

    def _render(self, statuses: Sequence[StageStatus]) -> RenderableType:
        shown = [s for s in statuses if self._all_stages or s.state in ("running", "failed")]
        parts: list[RenderableType] = [Text(self._started.title), Text(_counts(statuses))]
        parts.append(_arm_table(self._started.arms, statuses))
        if shown:
            parts += [Text(), _stage_table(shown)]
        return Group(*parts, *_failures(statuses))


def _counts(statuses: Sequence[StageStatus]) -> str:
    """Say how many stages are in each state, and what they have cost so far."""
    counts = Counter(status.state for status in statuses)
    states = ", ".join(f"{counts[state]} {state}" for state in reversed(_ORDER) if counts[state])
    used, left = _hours(statuses)
    return f"{len(statuses)} stages: {states}; GPU hours: {used} used, {left} left to train"


def _hours(statuses: Sequence[StageStatus]) -> tuple[str, str]:
    """Return GPU hours used and left, the latter with a ? where a stage's are not known."""
    known = [each.gpu_hours_left for each in statuses if each.gpu_hours_left is not None]
    left = f"{sum(known):.2f}" if len(known) == len(statuses) else "?"
    return f"{sum(status.gpu_hours for status in statuses):.2f}", left


def _arm_table(arms: Sequence[StartedArm], statuses: Sequence[StageStatus]) -> NameTable:
    known = {status.folder: status for status in statuses}
    numbers = ("stages", "GPU hours", "left")
    table = NameTable("arm", "state", *numbers, "now", right=numbers)
    for arm in arms:
        own = [known[folder] for folder in arm.stages]
        state = next((st for st in _ORDER if any(s.state == st for s in own)), "finished")
        finished = sum(s.state == "finished" for s in own)
        now = next((s.label for s in own if s.state == state and state != "finished"), "")
        styled = Text(state, style=_STYLES.get(state, ""))
        table.add_row(arm.name, styled, f"{finished}/{len(own)}", *_hours(own), now)
    return table


def _stage_table(statuses: Sequence[StageStatus]) -> NameTable:
    numbers = ("step", "loss", "ran", "left")
    table = NameTable("stage", "state", *numbers, "job", "why", right=numbers)
    for status in statuses:
        table.add_row(
            status.label,
            Text(status.state, style=_STYLES.get(status.state, "")),
            "" if status.step is None else f"{status.step}/{status.num_steps or '?'}",
            "" if status.loss is None else f"{status.loss:.4f}",
            _clock(status.seconds) if status.seconds else "",
            _left(status),
            status.job_id or "",
            status.detail,
        )
    return table


def _failures(statuses: Sequence[StageStatus]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for status in statuses:
        if status.state == "failed":
            parts.append(Text(f"\n{status.label}: logs in {status.logs}", overflow="fold"))
            parts += [Text(f"  {line}", style="dim") for line in status.tail]
    return parts


def _left(status: StageStatus) -> str:
    if status.seconds_left is None or status.state != "running":
        return ""
    return _clock(status.seconds_left)


def _clock(total_s: float) -> str:
    minutes, seconds = divmod(round(total_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
