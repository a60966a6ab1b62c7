"""Best-fit decreasing: the longest segment first, each where the smallest gap is left.

Equal lengths and equal gaps are handled in groups, so the work grows with the number of different
lengths and of sequences, and a million documents take well under a second in Python.

Source: Johnson et al. 1974, "Worst-case performance bounds for simple one-dimensional packing
algorithms".
"""

import numpy as np

from megatron_msm.data.packing.index import Int64Array


def best_fit_decreasing(
    sizes: Int64Array, capacity: int, *, max_documents: int | None, order: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Put items into as few bins as best-fit decreasing finds.

    Args:
        sizes: [items] from 1 to `capacity`.
        capacity: Size of a bin.
        max_documents: Most items of a bin.
        order: [items] A permutation that decides between equally large items.

    Returns:
        The order in which the items were placed, and the bin of each in that order.
    """
    by_size = order[np.argsort(-sizes[order], kind="stable")]
    different, counts = np.unique(sizes, return_counts=True)
    bins = _BinsByGap(capacity, max_documents)
    placed = [
        bins.place(int(size), int(count))
        for size, count in zip(different[::-1], counts[::-1], strict=True)
    ]
    return by_size, np.concatenate([np.empty(0, np.int64), *placed])


class _BinsByGap:
    """Open bins, grouped by the room still left."""

    def __init__(self, capacity: int, max_documents: int | None) -> None:
        self.capacity = capacity
        self.num_bins = 0
        self._bins: list[list[int]] = [[] for _ in range(capacity + 1)]
        # Bit g is set while some bin has exactly g left.
        self._gaps = 0
        # Items that may still come into each bin; every item has a size, so `capacity` is no limit.
        self._most = capacity if max_documents is None else max_documents
        self._left: list[int] = []

    def place(self, size: int, count: int) -> Int64Array:
        """Place `count` items of `size`, each where the smallest gap is left."""
        placed: list[int] = []
        while len(placed) < count:
            gap, index = self._take(size)
            num = min(gap // size, count - len(placed), self._left[index])
            placed.extend([index] * num)
            self._left[index] -= num
            self._put(gap - num * size, index)
        return np.array(placed, np.int64)

    def _take(self, size: int) -> tuple[int, int]:
        """Remove and return the fullest bin with room, or a new one: (gap, bin)."""
        fitting = self._gaps >> size
        if not fitting:
            self.num_bins += 1
            self._left.append(self._most)
            return self.capacity, self.num_bins - 1
        gap = size + (fitting & -fitting).bit_length() - 1
        index = self._bins[gap].pop()
        if not self._bins[gap]:
            self._gaps &= ~(1 << gap)
        return gap, index

    def _put(self, gap: int, index: int) -> None:
        if gap and self._left[index]:
            self._bins[gap].append(index)
            self._gaps |= 1 << gap
