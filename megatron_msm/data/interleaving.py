"""Which source each position of a phase visits: evenly mixed, computed where it is asked for.

Of a source's n visits the j-th is due at the point (j + u) / n of the phase, u drawn by the seed
from [0, 1); positions are the points of all sources in order. How many points lie before a point x
is known without the others, so the order around any position costs a stretch of a few thousand
points, however long the phase is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from megatron_msm.data.random_streams import VISITS, random_stream

_STRETCH = 1 << 14
"""Positions that are computed at once, about."""


class _Stretch(NamedTuple):
    first: int
    """Its first position."""
    before: list[int]
    """Visits of each source before it."""
    source_of: npt.NDArray[np.int64]
    visit_of: npt.NDArray[np.int64]


class Interleaving:
    """The order in which sources take turns.

    Args:
        counts: Visits of each source.
        seed: Draws the points.
    """

    def __init__(self, counts: Sequence[int], *, seed: int) -> None:
        self._counts = list(counts)
        self._seed = seed
        self._num_stretches = max(sum(counts) // _STRETCH, 1)
        self._known: tuple[int, _Stretch] | None = None

    def visit_at(self, position: int) -> tuple[int, int]:
        """Return the source at a position, and which visit to it that is."""
        if len(self._counts) == 1:
            return 0, position
        stretch = self._stretch_of(position)
        offset = position - stretch.first
        return int(stretch.source_of[offset]), int(stretch.visit_of[offset])

    def visits_before(self, position: int) -> list[int]:
        """Return how often each source was visited before a position."""
        if len(self._counts) == 1:
            return [position]
        if position >= sum(self._counts):
            return list(self._counts)
        stretch = self._stretch_of(position)
        inside = stretch.source_of[: position - stretch.first]
        counts = np.bincount(inside, minlength=len(self._counts))
        return [before + int(count) for before, count in zip(stretch.before, counts, strict=True)]

    def _stretch_of(self, position: int) -> _Stretch:
        if self._known is not None:
            known = self._known[1]
            if known.first <= position < known.first + len(known.source_of):
                return known
        low, high = 0, self._num_stretches - 1
        while low < high:
            middle = (low + high + 1) // 2
            if sum(self._before(middle)) <= position:
                low = middle
            else:
                high = middle - 1
        self._known = low, self._stretch(low)
        return self._known[1]

    def _stretch(self, number: int) -> _Stretch:
        before, after = self._before(number), self._before(number + 1)
        sources = range(len(self._counts))
        ranges = [np.arange(before[source], after[source]) for source in sources]
        points = [self._points(source, before[source], after[source]) for source in sources]
        order = np.argsort(np.concatenate(points), kind="stable")
        source_of = np.repeat(np.arange(len(ranges)), [len(part) for part in ranges])
        return _Stretch(sum(before), before, source_of[order], np.concatenate(ranges)[order])

    def _before(self, number: int) -> list[int]:
        """Return how many points of each source lie before the start of a stretch."""
        if number == self._num_stretches:
            return list(self._counts)
        start = number / self._num_stretches
        found = []
        for source, count in enumerate(self._counts):
            # The point of a visit lies in its own n-th of the phase, to rounding.
            first = max(int(start * count) - 1, 0)
            points = self._points(source, first, min(first + 3, count))
            found.append(first + int((points < start).sum()))
        return found

    def _points(self, source: int, first: int, end: int) -> npt.NDArray[np.float64]:
        drawn = random_stream(self._seed, source, VISITS, skip=first).random(max(end - first, 0))
        points: npt.NDArray[np.float64] = (np.arange(first, first + len(drawn)) + drawn) / max(
            self._counts[source], 1
        )
        return points
