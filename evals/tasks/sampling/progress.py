"""How many replies are done, told to whoever runs the evaluation.

Inspect runs a task's scorer in a copy of the caller's context, so the caller's function travels in
a context variable; under `inspect eval` there is none, and Inspect shows its own progress.
"""

from collections.abc import Callable
from contextvars import ContextVar

ON_SCORED: ContextVar[Callable[[], None]] = ContextVar("on_scored", default=lambda: None)
"""Called when a reply has been scored."""
