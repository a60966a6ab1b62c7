"""Progress of a long run on stderr: a bar on a terminal, a line now and then in a log file."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_LOG_INTERVAL_S = 10.0


@contextlib.contextmanager
def show_progress(title: str, *, total: int, is_bytes: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function to be called with the amount of work just done.

    Args:
        title: What is being done.
        total: All of the work, in the same unit.
        is_bytes: Whether the unit is bytes; else rows.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LogLines(console, title, total, is_bytes=is_bytes)
        return
    unit: list[ProgressColumn] = (
        [DownloadColumn(), TransferSpeedColumn()] if is_bytes else [MofNCompleteColumn()]
    )
    columns = [TextColumn("{task.description}"), BarColumn(), *unit, TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda amount: progress.update(task, advance=amount)


class _LogLines:
    """Writes a plain line every few seconds; nothing at all for a short run."""

    def __init__(self, console: Console, title: str, total: int, *, is_bytes: bool) -> None:
        self._console = console
        self._title = title
        self._scale = 1e6 if is_bytes else 1.0
        self._unit = "MB" if is_bytes else "rows"
        self._total = total
        self._done = 0
        self._started = self._logged = time.monotonic()

    def __call__(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._logged < _LOG_INTERVAL_S:
            return
        self._logged = now
        rate = self._done / (now - self._started)
        left_s = (self._total - self._done) / rate if rate else 0.0
        self._console.print(
            f"{self._title}: {self._done / self._scale:,.0f} of {self._total / self._scale:,.0f} "
            f"{self._unit}, {rate / self._scale:,.1f} {self._unit}/s, {left_s:,.0f} s left",
            highlight=False,
            soft_wrap=True,
        )
