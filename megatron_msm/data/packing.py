"""Documents into packed sequences: best-fit decreasing.

A packed sequence holds whole segments side by side. A segment is a run of positions of one
document; a position is a token and the token after it, the one it learns to predict. A document of
n tokens therefore has n - 1 positions, and a document longer than a sequence is cut so that no
position is lost: neighbouring segments share one token.

Source: best-fit decreasing, Johnson et al. 1974, "Worst-case performance bounds for simple
one-dimensional packing algorithms". Equal lengths and equal gaps are handled in groups.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Segments:
    """Runs of positions, one entry a segment; all arrays int64, [segments]."""

    document: Int64Array
    start: Int64Array
    """First position inside the document."""
    length: Int64Array
    """Number of positions."""


@dataclass(frozen=True)
class PackPlan:
    """Which segments each packed sequence holds.

    Sequence i holds `segments[order[offsets[i]:offsets[i + 1]]]`.
    """

    segments: Segments
    order: Int64Array
    """[segments]"""
    offsets: Int64Array
    """[sequences + 1]"""
    capacity: int
    """Positions of a sequence."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def fill(self) -> float:
        """Share of positions that hold a token."""
        return float(self.segments.length.sum()) / max(len(self) * self.capacity, 1)


def split_documents(lengths: npt.NDArray[np.integer], capacity: int) -> Segments:
    """Cut documents of `lengths` tokens into segments of at most `capacity` positions.

    Documents of fewer than two tokens have nothing to predict and give no segment.
    """
    positions = np.maximum(lengths.astype(np.int64) - 1, 0)
    pieces = -(-positions // capacity)
    document = np.repeat(np.arange(len(positions)), pieces)
    piece = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = piece * capacity
    return Segments(document, start, np.minimum(positions[document] - start, capacity))


def plan_packs(segments: Segments, capacity: int, *, seed: int) -> PackPlan:
    """Pack segments into as few sequences of `capacity` positions as best-fit decreasing finds.

    Args:
        segments: What to pack; every length is at most `capacity`.
        capacity: Positions of a sequence.
        seed: Decides which of several equally long segments goes where.
    """
    shuffled = np.random.Generator(np.random.Philox(seed)).permutation(len(segments.length))
    by_length = shuffled[np.argsort(-segments.length[shuffled], kind="stable")]
    lengths, counts = np.unique(segments.length[by_length], return_counts=True)
    bins = _BinsByGap(capacity)
    # `assigned[k]` is the sequence of the k-th longest segment.
    assigned = np.concatenate(
        [np.empty(0, np.int64)]
        + [
            bins.place(int(length), int(count))
            for length, count in zip(lengths[::-1], counts[::-1], strict=True)
        ]
    )
    grouped = np.argsort(assigned, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(assigned, minlength=bins.num_bins))])
    return PackPlan(segments, by_length[grouped], offsets.astype(np.int64), capacity)


class _BinsByGap:
    """Open sequences, grouped by the number of positions still free."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.num_bins = 0
        self._bins: list[list[int]] = [[] for _ in range(capacity + 1)]
        # Bit g is set while some sequence has exactly g free positions.
        self._gaps = 0

    def place(self, length: int, count: int) -> Int64Array:
        """Place `count` segments of `length`, each where the smallest gap is left."""
        placed: list[int] = []
        while len(placed) < count:
            gap, index = self._take(length)
            num = min(gap // length, count - len(placed))
            placed.extend([index] * num)
            self._put(gap - num * length, index)
        return np.array(placed, np.int64)

    def _take(self, length: int) -> tuple[int, int]:
        """Remove and return the fullest sequence with room, or a new one: (gap, sequence)."""
        fitting = self._gaps >> length
        if not fitting:
            self.num_bins += 1
            return self.capacity, self.num_bins - 1
        gap = length + (fitting & -fitting).bit_length() - 1
        index = self._bins[gap].pop()
        if not self._bins[gap]:
            self._gaps &= ~(1 << gap)
        return gap, index

    def _put(self, gap: int, index: int) -> None:
        if gap:
            self._bins[gap].append(index)
            self._gaps |= 1 << gap
