"""A forked process that ends when the process that started it is gone, whatever that died of.

A parent killed with SIGKILL tells its children nothing; a child left behind would hold the pipes of
the shell that waits for the command.
"""

import contextlib
import os
import threading
import time

_CHECK_INTERVAL_S = 1.0


def end_with_parent(parent: int) -> None:
    """Watch for the end of `parent` (a process id) in a thread, and end this process with it."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_CHECK_INTERVAL_S)
    with contextlib.suppress(OSError):
        os._exit(1)
