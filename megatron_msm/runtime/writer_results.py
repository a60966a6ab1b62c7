"""What a checkpoint's writer process tells the rank that forked it.

megatron-core passes it through a `multiprocessing.Manager` (filesystem_async.py:44), a server
process of its own. That one outlives a rank that is killed, for good, and keeps its terminal open.
An anonymous file, which the fork inherits, needs no process and holds results of any size.
"""

import pickle
import queue
import tempfile
from typing import Any

from megatron.core.dist_checkpointing.strategies import filesystem_async


class WriterResult:
    """One value from a forked process to its parent, in the interface of a queue."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the object

    def put(self, value: Any) -> None:
        """Hand over the value."""
        pickle.dump(value, self._file)
        self._file.flush()

    def get_nowait(self) -> Any:
        """Return the value.

        Raises:
            queue.Empty: The process ended without one.
        """
        self._file.seek(0)
        content = self._file.read()
        if not content:
            raise queue.Empty
        return pickle.loads(content)


def use_for_next_save() -> None:
    """Make megatron-core's next save use a `WriterResult`; called before each."""
    filesystem_async._results_queue = WriterResult()
