"""Which positions of packed documents a context parallel rank has."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ContextShare:
    """One rank's share of every document, among the context parallel ranks.

    Each document is cut into 2 x size pieces, of which rank r has piece r and piece r from the end,
    one after the other: an early and a late one, so that causal attention costs all the same.

        size 2, a document of 8:   0 1 | 2 3 | 4 5 | 6 7   rank 0: 0 1 6 7   rank 1: 2 3 4 5

    Source: Transformer Engine's `tex.thd_get_partitioned_indices` and megatron-core 0.16.1,
    models/common/embeddings/rope_utils.py:129, which expect exactly this of packed sequences.
    """

    rank: int
    size: int

    def positions(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return this rank's positions of documents of `lengths` laid end to end, in order."""
        if self.size == 1:
            return np.arange(int(lengths.sum()))
        pieces = 2 * self.size
        assert not (lengths % pieces).any(), "the layout check asks for whole pieces"
        piece_sizes = np.repeat(lengths // pieces, pieces)
        piece_of_position = np.repeat(np.tile(np.arange(pieces), len(lengths)), piece_sizes)
        mine = (piece_of_position == self.rank) | (piece_of_position == pieces - 1 - self.rank)
        return np.flatnonzero(mine)
