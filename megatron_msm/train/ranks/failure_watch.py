"""A rank's failure made known: to the user in a file, to the other ranks through their store.

A collective with a rank that is gone may wait until its time-out: half an hour on a GPU. So the
failing rank says so in the key-value store that the ranks met at, and a thread of every other rank
looks there once a second and ends its process.
"""

import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from torch._C._distributed_c10d import TCPStore

from megatron_msm.errors import MsmError, PreemptedError
from megatron_msm.runtime.store import connect_to_store, key_of_start
from megatron_msm.train.ranks.failure_file import describe_failure, write_failure

_POLL_S = 1.0
# The main thread mostly sees the failure itself, and says more.
_GRACE_S = 3.0


class FailureWatch:
    """Tells the other ranks when this one fails, and ends this one when another does.

    Entered when the ranks have met, left when they part.

    Args:
        out: The run folder.
        rank: This rank.
    """

    def __init__(self, out: Path, rank: int) -> None:
        self._out, self._rank = out, rank
        self._store = connect_to_store()
        self._key = key_of_start("failed")
        self._is_over = threading.Event()
        # A connection of its own: one is busy while it waits for an answer.
        self._thread = threading.Thread(
            target=self._watch, args=(connect_to_store(),), name="failure-watch", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        # A thread that is inside the store's C++ code when Python ends takes the process down
        # ("terminate called without an active exception").
        self._thread.join(timeout=_GRACE_S)
        if error is not None and not isinstance(error, PreemptedError):
            self._announce(error)

    def _announce(self, error: BaseException) -> None:
        """Make this rank's failure known, unless it follows from another's."""
        said = describe_failure(self._rank, error)
        try:
            first = self._store.compare_set(self._key, "", said).decode()
        except RuntimeError:
            first = "the connection to rank 0 is lost; its output says why"
        if first == said:
            write_failure(self._out, self._rank, error)
        elif not isinstance(error, MsmError):
            sys.stderr.write(f"rank {self._rank} ends because {first}\n")

    def _watch(self, store: TCPStore) -> None:
        while not self._is_over.wait(_POLL_S):
            try:
                found = store.get(self._key).decode() if store.check([self._key]) else ""
            except RuntimeError:
                found = "the connection to rank 0 is lost; its output says why"
            if found and not self._is_over.wait(_GRACE_S):
                sys.stderr.write(f"rank {self._rank} ends because {found}\n")
                sys.stderr.flush()
                os._exit(1)
