"""The table of `msm experiment status`, once or live."""

import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from slurm.experiments.experiment_file import StartedExperiment
from slurm.stages.status import StageStatus, all_statuses

_REFRESH_S = 5.0
_STYLES = {"finished": "green", "running": "cyan", "failed": "red", "blocked": "red"}


def show(root: Path, started: StartedExperiment) -> None:
    """Print the table once."""
    Console(highlight=False).print(_render(started.title, all_statuses(root, started.labels)))


def watch_until_ended(root: Path, started: StartedExperiment) -> None:
    """Keep the table on the screen until nothing runs or waits any more."""
    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        while True:
            statuses = all_statuses(root, started.labels)
            live.update(_render(started.title, statuses), refresh=True)
            if not any(status.state in ("running", "queued") for status in statuses):
                return
            time.sleep(_REFRESH_S)


def _render(title: str, statuses: list[StageStatus]) -> RenderableType:
    table = Table(box=None, pad_edge=False, title=Text(title), title_justify="left")
    for column in ("stage", "state"):
        table.add_column(column)
    for column in ("step", "loss", "left"):
        table.add_column(column, justify="right")
    table.add_column("job")
    table.add_column("why", overflow="fold")
    for status in statuses:
        table.add_row(
            Text(status.label),
            Text(status.state, style=_STYLES.get(status.state, "")),
            "" if status.step is None else f"{status.step}/{status.num_steps or '?'}",
            "" if status.loss is None else f"{status.loss:.4f}",
            _left(status),
            status.job_id or "",
            Text(status.detail),
        )
    return Group(table, *_failures(statuses))


def _failures(statuses: list[StageStatus]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for status in statuses:
        if status.state == "failed":
            parts.append(Text(f"\n{status.label}: logs in {status.logs}", overflow="fold"))
            parts += [Text(f"  {line}", style="dim") for line in status.tail]
    return parts


def _left(status: StageStatus) -> str:
    if status.seconds_left is None or status.state != "running":
        return ""
    minutes, seconds = divmod(round(status.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
