"""How far an evaluation is, as its task counts it."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console

from megatron_msm.progress import show_progress


@contextlib.contextmanager
def progress_on(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes how much is done, and of how much."""
    with show_progress(console) as progress:
        progress.start(what, None, unit="")
        yield progress.reach
