"""Blocks through worker processes, results in the order of the blocks, a bounded number at a time.

Workers are forked once everything they need is loaded: they start at once and share the tokenizer's
memory. This process reads, hashes and writes, and does nothing per line. A worker whose parent is
gone ends itself, whatever the parent died of.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, NamedTuple, TypeVar

from data_prep.parent_watch import end_with_parent
from data_prep.reading.blocks import Block
from data_prep.reading.inputs import STDIN
from data_prep.reading.shards import FilePart
from megatron_msm.errors import MsmError

Result = TypeVar("Result")
_AHEAD = 2
"""Blocks a worker is given beyond the one it works on, so that it never waits."""
_SMALL_BYTES = 4 << 20


class Task(NamedTuple):
    """A block, and whether only its rejects are of interest."""

    block: Block
    rejects_only: bool


class Done(NamedTuple, Generic[Result]):
    """A block and its result."""

    block: Block
    result: Result


def num_workers_for(parts: Sequence[FilePart], asked: int | None) -> int:
    """Return how many workers to use: those asked for, else one for each CPU this process may use.

    A small input is not worth starting them.
    """
    if asked is not None:
        return asked
    if STDIN in (part.path for part in parts) or _num_bytes(parts) >= _SMALL_BYTES:
        return len(os.sched_getaffinity(0))
    return 1


def _num_bytes(parts: Sequence[FilePart]) -> int:
    stops = (part.path.stat().st_size if part.stop is None else part.stop for part in parts)
    return sum(stop - part.start for stop, part in zip(stops, parts, strict=True))


def in_order(
    tasks: Iterable[Task], work: Callable[[Task], Result], *, num_workers: int
) -> Iterator[Done[Result]]:
    """Yield the result of each block, in order.

    Args:
        tasks: Taken only as fast as there is room for them.
        work: What is done with a block; with workers it runs in forked processes.
        num_workers: None or one: in this process.

    Raises:
        MsmError: A worker died.
    """
    if num_workers <= 1:
        for task in tasks:
            yield Done(task.block, work(task))
        return
    # tokenizers would start threads in each worker besides.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_start_worker,
        initargs=(work, os.getpid()),
    )
    waiting: deque[tuple[Block, Future[Result]]] = deque()
    try:
        for task in tasks:
            waiting.append((task.block, pool.submit(_work, task)))
            if len(waiting) >= num_workers * (1 + _AHEAD):
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    except BrokenProcessPool:
        raise MsmError(
            "a worker process was killed, perhaps for want of memory. Nothing was finished; run "
            "the command again, with fewer --workers if memory was short."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _next(waiting: "deque[tuple[Block, Future[Result]]]") -> Done[Result]:
    block, future = waiting.popleft()
    return Done(block, future.result())


_worker_function: Callable[[Task], Any] | None = None


def _start_worker(work: Callable[[Task], object], parent: int) -> None:
    global _worker_function
    _worker_function = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent(parent)


def _work(task: Task) -> Any:
    assert _worker_function is not None, "the worker was started by its initializer"
    return _worker_function(task)
