"""What a conversion tells about its progress, and who shows it."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress


class Progress(Protocol):
    """Receives what has been done."""

    def start(self, what: str, total_bytes: int) -> None:
        """Begin a step of a known length."""
        ...

    def advance(self, num_bytes: int) -> None:
        """Count bytes of the current step."""
        ...


class NoProgress:
    """Shows nothing."""

    def start(self, what: str, total_bytes: int) -> None:
        """Ignore."""

    def advance(self, num_bytes: int) -> None:
        """Ignore."""


class _Bar:
    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task = bars.add_task("starting", total=None)

    def start(self, what: str, total_bytes: int) -> None:
        """Begin the bar anew."""
        self._bars.reset(self._task, total=total_bytes, description=what)

    def advance(self, num_bytes: int) -> None:
        """Move the bar."""
        self._bars.advance(self._task, num_bytes)


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a bar on stderr for the length of the block; it leaves no line behind."""
    console = Console(stderr=True)
    with RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        yield _Bar(bars)
