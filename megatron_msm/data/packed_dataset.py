"""Indexed datasets as packed sequences: what a training step reads.

Every rank opens the same memory-mapped files and builds the packs it needs, so nothing is sent
between ranks. A pack is a function of the files, the sequence length and the packing settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from megatron_msm.data.packing.index import Int64Array, PackingIndex, aligned
from megatron_msm.data.source import Source
from megatron_msm.formats.manifest import DatasetManifest


@dataclass(frozen=True)
class Pack:
    """One packed sequence of S positions."""

    tokens: npt.NDArray[np.int64]
    """[S]; zero at padding."""
    labels: npt.NDArray[np.int64]
    """[S]; the token after each position."""
    loss_mask: npt.NDArray[np.bool_]
    """[S]; True where the label counts."""
    segment_lengths: npt.NDArray[np.int64]
    """Positions of each document segment, with its padding for alignment; the last entry may be
    the padding of the sequence. Sums to S."""


class RowPiece(NamedTuple):
    """A run of positions of one row."""

    source: int
    """Which of the dataset's sources."""
    row: int
    start: int
    """First position inside the row."""
    length: int
    """Number of positions."""


class _Packs(NamedTuple):
    """Packed sequences that are numbered together."""

    source: int
    packing_index: PackingIndex
    rows: Int64Array | None
    """The row of each of the index's documents; None: all rows in order."""


class PackedDataset:
    """The packed sequences of one phase.

    They are numbered source after source: first those of a whole pass, then those of the part.

    Args:
        sources: Datasets with their packing, all for the same sequence length.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self.seq_length = sources[0].packing_index.capacity
        self._packs: list[_Packs] = []
        for index, source in enumerate(sources):
            self._packs.append(_Packs(index, source.packing_index, None))
            if source.part is not None:
                self._packs.append(_Packs(index, source.part.packing_index, source.part.rows))
        self._first = np.cumsum([0, *(len(packs.packing_index) for packs in self._packs)])

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def manifests(self) -> list[DatasetManifest]:
        """The manifest of each source."""
        return [source.manifest for source in self.sources]

    @property
    def prefixes(self) -> list[Path]:
        """The prefix of each source."""
        return [source.prefix for source in self.sources]

    def __getitem__(self, index: int) -> Pack:
        """Build packed sequence `index`."""
        pack = empty_pack(self.seq_length)
        pieces = self.rows(index)
        lengths = np.array([piece.length for piece in pieces], np.int64)
        sizes = aligned(lengths, self.sources[pieces[0].source].packing_index.align)
        starts = np.cumsum(sizes) - sizes
        for piece, start in zip(pieces, starts, strict=True):
            tokens, mask = self._read(piece)
            here = slice(start, start + piece.length)
            pack.tokens[here] = tokens[:-1]
            pack.labels[here] = tokens[1:]
            pack.loss_mask[here] = mask[1:]
        padding = self.seq_length - int(sizes.sum())
        segment_lengths = np.append(sizes, padding) if padding else sizes
        return Pack(pack.tokens, pack.labels, pack.loss_mask, segment_lengths)

    def rows(self, index: int) -> list[RowPiece]:
        """Return what packed sequence `index` holds, in order."""
        group = int(np.searchsorted(self._first, index, side="right")) - 1
        source, packed, rows = self._packs[group]
        here = packed.segments_of(index - int(self._first[group]))
        documents = packed.segments.document[here]
        return [
            RowPiece(source, int(row), int(start), int(length))
            for row, start, length in zip(
                documents if rows is None else rows[documents],
                packed.segments.start[here],
                packed.segments.length[here],
                strict=True,
            )
        ]

    def _read(self, piece: RowPiece) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the piece's `length` + 1 tokens and which of them count when predicted."""
        source, length = self.sources[piece.source], piece.length + 1
        tokens = source.tokens.get(piece.row, offset=piece.start, length=length).astype(np.int64)
        if source.masks is None:
            return tokens, np.ones(length, np.bool_)
        mask = source.masks.get(piece.row, offset=piece.start, length=length)
        return tokens, mask.astype(np.bool_)


def empty_pack(seq_length: int) -> Pack:
    """Return a sequence of padding, which fills up the last step of an epoch."""
    return Pack(
        tokens=np.zeros(seq_length, np.int64),
        labels=np.zeros(seq_length, np.int64),
        loss_mask=np.zeros(seq_length, np.bool_),
        segment_lengths=np.array([seq_length], np.int64),
    )
