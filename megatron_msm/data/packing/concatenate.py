"""Plain concatenation, as Megatron's pretraining does: documents end to end, cut at every sequence.

Nothing is wasted and nothing is chosen: a sequence starts in the middle of a document where the one
before it ended. Unlike Megatron's `GPTDataset`, document boundaries are kept, so attention and
positions restart at each document. Best-fit is as full and cuts only what is too long.
"""

import numpy as np

from megatron_msm.data.packing.index import Int64Array, Segments, aligned


def concatenate(
    positions: Int64Array,
    capacity: int,
    *,
    align: int,
    max_documents: int | None,
    order: Int64Array,
) -> tuple[Segments, Int64Array]:
    """Lay documents end to end and cut the row into sequences.

    Args:
        positions: [documents] Positions of each document.
        capacity: Positions of a sequence, a multiple of `align`.
        align: Every segment begins at a multiple of this.
        max_documents: A sequence with so many documents ends early.
        order: [documents] The documents' order.

    Returns:
        The segments in order, and where each sequence begins among them.
    """
    order = order[positions[order] > 0]
    ends = np.cumsum(aligned(positions[order], align))
    starts = ends - aligned(positions[order], align)
    packs = _pack_starts(ends, capacity, max_documents)
    cuts = np.union1d(starts, packs)
    index = np.searchsorted(ends, cuts, side="right")
    start = cuts - starts[index]
    following = np.append(cuts[1:], ends[-1:])
    length = np.minimum(following - starts[index], positions[order[index]]) - start
    offsets = np.append(np.searchsorted(cuts, packs), len(cuts)).astype(np.int64)
    return Segments(order[index], start, length), offsets


def _pack_starts(ends: Int64Array, capacity: int, max_documents: int | None) -> Int64Array:
    """Return where each sequence begins in the row of all documents."""
    total = int(ends[-1]) if len(ends) else 0
    if max_documents is None:
        return np.arange(0, total, capacity)
    starts, at = [], 0
    while at < total:
        starts.append(at)
        last = int(np.searchsorted(ends, at, side="right")) + max_documents - 1
        at = min(at + capacity, int(ends[min(last, len(ends) - 1)]))
    return np.array(starts, np.int64)
