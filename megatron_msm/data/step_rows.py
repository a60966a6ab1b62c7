"""Which rows an optimizer step sees."""

from typing import NamedTuple

from megatron_msm.data.blend import Blend
from megatron_msm.data.packed_dataset import RowPiece


class SeenRow(NamedTuple):
    """A row, or a piece of one, in a step's global batch."""

    sequence: int
    """Place of its packed sequence in the global batch, from 0."""
    piece: RowPiece


def rows_of_step(blend: Blend, *, step: int, global_batch_size: int) -> list[SeenRow]:
    """Return what optimizer step `step` (counted from 0) sees, in the order of the global batch.

    It is the same for every parallel layout.
    """
    first = step * global_batch_size
    seen = []
    for sequence in range(global_batch_size):
        index = blend.order[first + sequence]
        if index is not None:
            seen += [SeenRow(sequence, piece) for piece in blend.dataset.rows(index)]
    return seen
