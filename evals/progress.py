"""How far an evaluation is, as its task counts it."""

import contextlib
from collections.abc import Iterator

from rich.console import Console

from megatron_msm.progress import Progress, show_progress


@contextlib.contextmanager
def progress_on(console: Console, what: str) -> Iterator[Progress]:
    """Show the progress of the evaluation called `what`, whose total its task tells."""
    with show_progress(console) as progress:
        progress.start(what, None, unit="")
        yield progress
