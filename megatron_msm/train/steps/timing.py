"""Where the time of a step goes."""

import time
from collections.abc import Iterator
from typing import TypeAlias, TypeVar

import torch

Item = TypeVar("Item")
Mark: TypeAlias = torch.cuda.Event | float
"""A place in the work of a GPU, or on a CPU the time in seconds."""


class PartTimes:
    """Seconds of the parts of one step; on a GPU measured there, without waiting for it between.

    Args:
        is_cuda: Kernels run on a GPU.
    """

    def __init__(self, *, is_cuda: bool) -> None:
        self._is_cuda = is_cuda
        self._marks = [("", self._now())]
        self.data_s = 0.0
        """Time that the host spent building micro batches, inside of another part."""

    def end(self, part: str) -> None:
        """Say that what ran since the last mark was `part`."""
        self._marks.append((part, self._now()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part; on a GPU it waits for the last one."""
        last = self._marks[-1][1]
        if not isinstance(last, float):
            # The host waits for the step's last kernel; whether to stop, which all ranks ask next,
            # would wait for it anyway.
            last.synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return {part: _seconds_between(start, end) for (_, start), (part, end) in pairs}

    def timed(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield the items, adding the time that each takes to `data_s`."""
        while True:
            started = time.perf_counter()
            item = next(items, None)
            self.data_s += time.perf_counter() - started
            if item is None:
                return
            yield item

    def _now(self) -> Mark:
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _seconds_between(start: Mark, end: Mark) -> float:
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    assert not isinstance(start, float), "two marks of one device"
    assert not isinstance(end, float), "two marks of one device"
    return float(start.elapsed_time(end)) / 1000
