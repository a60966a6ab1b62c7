"""Progress of long work on stderr: a bar on a terminal, a line now and then where it is piped.

    with show_progress() as progress:
        progress.start("docs", num_bytes)
        for block in blocks:
            progress.advance(block.num_bytes, rows=block.num_rows)

Work may have several steps, one after the other; each begins with `start`.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text

LINE_EVERY_S = 10.0
"""Piped work that ends sooner writes no line."""
BYTES = "bytes"
"""The unit that is shown as MB."""


class Progress:
    """Is told what has been done; this one shows nothing."""

    def start(self, what: str, total: int | None, *, unit: str = BYTES, done: int = 0) -> None:
        """Begin a step.

        Args:
            what: Its name.
            total: All of it; None if that is not known.
            unit: What is counted, in the plural; an empty one leaves the speed out.
            done: How much of it was done before.
        """

    def advance(
        self, amount: int, *, rows: int = 0, numbers: str = "", always: bool = False
    ) -> None:
        """Count work of the current step.

        Args:
            amount: How much more is done.
            rows: How many rows it gave, where the unit is another.
            numbers: What else there is to tell.
            always: Whether it is worth a line even if one was written just now.
        """

    def reach(self, done: int, total: int) -> None:
        """Tell how much of the current step is done, and of how much."""

    def note(self, text: str) -> None:
        """Tell what happens meanwhile, such as saving.

        A bar shows it until work goes on; lines of `waiting` end with the newest.
        """

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show that work is under way of which nobody can say how much is done.

        The step before goes on afterwards; the time is not counted as its own.
        """
        yield


SILENT = Progress()


@contextlib.contextmanager
def show_progress(
    console: Console | None = None, *, leaves_bar: bool = False
) -> Iterator[Progress]:
    """Show what is done in the block.

    Args:
        console: Where; None means stderr.
        leaves_bar: Whether the bar stays when the work has ended.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        _DoneColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console, transient=not leaves_bar) as bars:
        yield _Bar(bars)


class _DoneColumn(ProgressColumn):
    """How much of how much: bytes with their speed, or a count."""

    def __init__(self) -> None:
        super().__init__()
        self._of_bytes = (DownloadColumn(), TransferSpeedColumn())
        self._of_count = MofNCompleteColumn()

    def render(self, task: RichTask) -> Text:
        """Render the column of a task."""
        if task.fields["unit"] == BYTES:
            size, speed = (column.render(task) for column in self._of_bytes)
            return size.append(" ").append(speed)
        return self._of_count.render(task)


class _Step:
    """How far the current step is."""

    def __init__(self, what: str, total: int | None, unit: str, done: int) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.done = done
        self.rows = 0
        self._begun_with = done
        self.begun_s = time.monotonic()

    def rate(self, now_s: float) -> float:
        """Return the work of a second."""
        return (self.done - self._begun_with) / max(now_s - self.begun_s, 1e-3)

    def numbers(self, now_s: float, more: str) -> str:
        """Return the numbers to show besides."""
        rows = ""
        if self.rows and self.unit != "rows":
            rows = f"{self.rows / max(now_s - self.begun_s, 1e-3):,.0f} rows/s"
        return "  ".join(text for text in (rows, more) if text)

    def line(self, now_s: float, more: str) -> str:
        """Return "docs: 120 of 800 MB, 40.0 MB/s, 9,000 rows/s, about 17 s left"."""
        scale, unit = (1e6, "MB") if self.unit == BYTES else (1.0, self.unit)
        of_total = "" if self.total is None else f" of {self.total / scale:,.0f}"
        rate = self.rate(now_s)
        parts = [
            f"{self.what}: {self.done / scale:,.0f}{of_total} {unit}".rstrip(),
            f"{rate / scale:,.1f} {unit}/s" if unit else "",
            self.numbers(now_s, more),
        ]
        if self.total is not None and rate > 0:
            parts.append(f"about {readable_duration(max(self.total - self.done, 0) / rate)} left")
        return ", ".join(part for part in parts if part)


class _Bar(Progress):
    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task = bars.add_task("starting", total=None, unit="", numbers="")
        self._step = _Step("", None, "", 0)

    def start(self, what: str, total: int | None, *, unit: str = BYTES, done: int = 0) -> None:
        self._step = _Step(what, total, unit, done)
        self._bars.reset(
            self._task, total=total, completed=done, description=what, unit=unit, numbers=""
        )

    def advance(
        self, amount: int, *, rows: int = 0, numbers: str = "", always: bool = False
    ) -> None:
        self._step.done += amount
        self._step.rows += rows
        self._show(numbers)

    def reach(self, done: int, total: int) -> None:
        self._step.done, self._step.total = done, total
        self._show("")

    def note(self, text: str) -> None:
        self._bars.update(self._task, numbers=text)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        step = self._step
        self.start(what, None, unit="")
        yield
        self.start(step.what, step.total, unit=step.unit, done=step.done)

    def _show(self, more: str) -> None:
        self._bars.update(
            self._task,
            completed=self._step.done,
            total=self._step.total,
            numbers=self._step.numbers(time.monotonic(), more),
        )


class _Lines(Progress):
    def __init__(self, console: Console) -> None:
        self._console = console
        self._step: _Step | None = None
        self._written_s = 0.0
        self._noted = ""

    def note(self, text: str) -> None:
        self._noted = f"; {text}"

    def start(self, what: str, total: int | None, *, unit: str = BYTES, done: int = 0) -> None:
        is_first = self._step is None
        self._step = _Step(what, total, unit, done)
        if is_first:
            self._written_s = self._step.begun_s

    def advance(
        self, amount: int, *, rows: int = 0, numbers: str = "", always: bool = False
    ) -> None:
        assert self._step is not None, "work is counted after its start"
        self._step.done += amount
        self._step.rows += rows
        self._write_if_due(self._step, numbers, always=always)

    def reach(self, done: int, total: int) -> None:
        assert self._step is not None, "work is counted after its start"
        self._step.done, self._step.total = done, total
        self._write_if_due(self._step, "", always=False)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        step, begun_s, has_ended = self._step, time.monotonic(), threading.Event()
        self._noted = ""

        def tell() -> None:
            while not has_ended.wait(LINE_EVERY_S):
                spent = readable_duration(time.monotonic() - begun_s)
                self._write(f"{what}: {spent} so far{self._noted}")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            has_ended.set()
            teller.join()
        if step is not None:
            self.start(step.what, step.total, unit=step.unit, done=step.done)

    def _write_if_due(self, step: _Step, numbers: str, *, always: bool) -> None:
        now_s = time.monotonic()
        if always or now_s - self._written_s >= LINE_EVERY_S:
            self._written_s = now_s
            self._write(step.line(now_s, numbers))

    def _write(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def readable_duration(seconds: float) -> str:
    """Return "40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
