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

OnProgress = Callable[[int, int], None]
"""Called with the amount of work just done, and the rows it gave."""


@contextlib.contextmanager
def show_progress(title: str, *, total: int | None, is_bytes: bool) -> Iterator[OnProgress]:
    """Yield a function to be called with the amount of work just done, and the rows it gave.

    Args:
        title: What is being done.
        total: All of the work, in the same unit; None if that is not known.
        is_bytes: Whether the unit is bytes; else rows.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LogLines(console, title, total, is_bytes=is_bytes)
        return
    unit: list[ProgressColumn] = (
        [DownloadColumn(), TransferSpeedColumn()] if is_bytes else [MofNCompleteColumn()]
    )
    rows = TextColumn("{task.fields[rows]}")
    columns = [TextColumn("{task.description}"), BarColumn(), *unit, rows, TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total, rows="")
        started, num_rows = time.monotonic(), 0

        def update(amount: int, more_rows: int) -> None:
            nonlocal num_rows
            num_rows += more_rows
            rate = num_rows / max(time.monotonic() - started, 1e-3)
            progress.update(task, advance=amount, rows=f"{rate:,.0f} rows/s")

        yield update


class _LogLines:
    """Writes a plain line every few seconds; nothing at all for a short run."""

    def __init__(self, console: Console, title: str, total: int | None, *, is_bytes: bool) -> None:
        self._console = console
        self._title = title
        self._scale = 1e6 if is_bytes else 1.0
        self._unit = "MB" if is_bytes else "rows"
        self._total = total
        self._done = self._rows = 0
        self._started = self._logged = time.monotonic()

    def __call__(self, amount: int, rows: int) -> None:
        self._done += amount
        self._rows += rows
        now = time.monotonic()
        if now - self._logged < _LOG_INTERVAL_S:
            return
        self._logged = now
        rate = self._done / (now - self._started)
        parts = [f"{self._title}: {self._done / self._scale:,.0f}"]
        if self._total is not None:
            parts.append(f"of {self._total / self._scale:,.0f}")
        parts.append(f"{self._unit}, {rate / self._scale:,.1f} {self._unit}/s")
        if self._unit != "rows":
            parts.append(f"({self._rows / (now - self._started):,.0f} rows/s)")
        if self._total is not None and rate:
            parts.append(f"{max(self._total - self._done, 0) / rate:,.0f} s left")
        self._console.print(" ".join(parts), highlight=False, soft_wrap=True)
