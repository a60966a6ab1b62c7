"""Documents as segments, and segments in packed sequences: what every packing strategy gives.

A packed sequence holds segments side by side. A segment is a run of positions of one document; a
position is a token and the token after it, the one it learns to predict. A document of n tokens
therefore has n - 1 positions, and where a document is cut no position is lost: neighbouring
segments share one token.

    sequence   | doc 7 ......... | pad | doc 2 (its end) .. | doc 9 ... | padding ........ |
    cu_seqlens 0                       24                   40          52                64
                                       ^ with `align: 8` every segment ends at a multiple of 8
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

    def __len__(self) -> int:
        return len(self.length)

    def take(self, order: Int64Array) -> "Segments":
        """Return the segments in this order."""
        return Segments(self.document[order], self.start[order], self.length[order])


@dataclass(frozen=True)
class PackingIndex:
    """Which segments each packed sequence holds.

    Sequence i holds segments `offsets[i]` to `offsets[i + 1]`, side by side.
    """

    segments: Segments
    offsets: Int64Array
    """[sequences + 1]"""
    capacity: int
    """Positions of a sequence."""
    align: int = 1
    """Every segment is padded to a multiple of this many positions."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def fill(self) -> float:
        """Share of positions that hold a token."""
        return float(self.segments.length.sum()) / max(len(self) * self.capacity, 1)

    @property
    def align_cost(self) -> float:
        """Share of positions that are padding for alignment alone."""
        length = self.segments.length
        spent = int((aligned(length, self.align) - length).sum())
        return spent / max(len(self) * self.capacity, 1)

    @property
    def most_documents(self) -> int:
        """Segments of the fullest sequence."""
        return int(np.diff(self.offsets).max(initial=0))

    def segments_of(self, index: int) -> slice:
        """Return where the segments of sequence `index` are."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))


def aligned(length: Int64Array, align: int) -> Int64Array:
    """Round lengths up to a multiple of `align`."""
    return -(-length // align) * align


def positions_of(lengths: npt.NDArray[np.integer]) -> Int64Array:
    """Return how many positions documents of `lengths` tokens have."""
    return np.maximum(lengths.astype(np.int64) - 1, 0)


def split_documents(lengths: npt.NDArray[np.integer], capacity: int) -> Segments:
    """Cut documents of `lengths` tokens into segments of at most `capacity` positions.

    Documents of fewer than two tokens have nothing to predict and give no segment.
    """
    positions = positions_of(lengths)
    pieces = -(-positions // capacity)
    document = np.repeat(np.arange(len(positions)), pieces)
    piece = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = piece * capacity
    return Segments(document, start, np.minimum(positions[document] - start, capacity))


def group_by_bin(
    segments: Segments, order: Int64Array, bins: Int64Array
) -> tuple[Segments, Int64Array]:
    """Return segments sorted by the bin they were put into, and where each bin begins.

    Args:
        segments: The segments.
        order: [segments] The order they were placed in.
        bins: [segments] The bin of `order[k]`; bins are numbered without gaps.
    """
    grouped = np.argsort(bins, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(bins))]).astype(np.int64)
    return segments.take(order[grouped]), offsets
