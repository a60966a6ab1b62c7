"""Indexed datasets as packed sequences: what a training step reads.

Every rank opens the same memory-mapped files and builds the packs it needs, so nothing is sent
between ranks. A pack is a function of the files, the sequence length and the seed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_msm.data.packing import PackPlan, plan_packs, split_documents
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.indexed_dataset import IndexedDataset, mask_prefix
from megatron_msm.formats.manifest import DatasetManifest, read_manifest


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
    """Positions of each document segment; the last entry may be the padding. Sums to S."""


class PackedDataset:
    """The packed sequences of one phase's datasets.

    Args:
        prefixes: Datasets made by `msm prep`, concatenated in this order.
        seq_length: Positions of a packed sequence.
        seed: Decides how equally long documents are packed.

    Raises:
        DataFormatError: A dataset is unfinished, or a chat is longer than a sequence.
    """

    def __init__(self, prefixes: Sequence[Path], *, seq_length: int, seed: int) -> None:
        self.seq_length = seq_length
        self.manifests: list[DatasetManifest] = [read_manifest(prefix) for prefix in prefixes]
        self._tokens = [IndexedDataset(prefix) for prefix in prefixes]
        self._masks = [
            IndexedDataset(mask_prefix(prefix)) if manifest.kind == "chats" else None
            for prefix, manifest in zip(prefixes, self.manifests, strict=True)
        ]
        for prefix, manifest, tokens in zip(prefixes, self.manifests, self._tokens, strict=True):
            _refuse_long_chats(prefix, manifest, tokens, seq_length)
        self._first_row = np.cumsum([0, *(len(tokens) for tokens in self._tokens)])
        lengths = np.concatenate([tokens.lengths for tokens in self._tokens])
        self.plan: PackPlan = plan_packs(
            split_documents(lengths, seq_length), seq_length, seed=seed
        )
        if len(self.plan) == 0:
            raise DataFormatError(
                f"{', '.join(map(str, prefixes))}: no document has two tokens or more, so there "
                "is nothing to train on."
            )

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Pack:
        """Build packed sequence `index`."""
        plan, capacity = self.plan, self.seq_length
        chosen = plan.order[plan.offsets[index] : plan.offsets[index + 1]]
        lengths = plan.segments.length[chosen]
        pack = empty_pack(capacity)
        ends = np.cumsum(lengths)
        for segment, end, length in zip(chosen, ends, lengths, strict=True):
            tokens, mask = self._read(
                int(plan.segments.document[segment]),
                int(plan.segments.start[segment]),
                int(length),
            )
            here = slice(end - length, end)
            pack.tokens[here] = tokens[:-1]
            pack.labels[here] = tokens[1:]
            pack.loss_mask[here] = mask[1:]
        padding = capacity - int(ends[-1])
        segment_lengths = np.append(lengths, padding) if padding else lengths
        return Pack(pack.tokens, pack.labels, pack.loss_mask, segment_lengths)

    def rows(self, index: int) -> list[tuple[int, int]]:
        """Return (dataset, row) of every document in packed sequence `index`."""
        chosen = self.plan.order[self.plan.offsets[index] : self.plan.offsets[index + 1]]
        return [self._locate(int(self.plan.segments.document[segment])) for segment in chosen]

    def _locate(self, document: int) -> tuple[int, int]:
        dataset = int(np.searchsorted(self._first_row, document, side="right")) - 1
        return dataset, document - int(self._first_row[dataset])

    def _read(
        self, document: int, start: int, length: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the segment's `length` + 1 tokens and which of them count when predicted."""
        dataset, row = self._locate(document)
        tokens = self._tokens[dataset].get(row, offset=start, length=length + 1).astype(np.int64)
        mask_dataset = self._masks[dataset]
        if mask_dataset is None:
            return tokens, np.ones(length + 1, np.bool_)
        return tokens, mask_dataset.get(row, offset=start, length=length + 1).astype(np.bool_)


def empty_pack(seq_length: int) -> Pack:
    """Return a sequence of padding, which fills up the last step of an epoch."""
    return Pack(
        tokens=np.zeros(seq_length, np.int64),
        labels=np.zeros(seq_length, np.int64),
        loss_mask=np.zeros(seq_length, np.bool_),
        segment_lengths=np.array([seq_length], np.int64),
    )


def _refuse_long_chats(
    prefix: Path, manifest: DatasetManifest, tokens: IndexedDataset, seq_length: int
) -> None:
    if manifest.kind != "chats" or len(tokens) == 0:
        return
    row = int(np.argmax(tokens.lengths))
    if int(tokens.lengths[row]) > seq_length + 1:
        raise DataFormatError(
            f"{prefix}: chat in row {row} has {tokens.lengths[row]} tokens, but seq_length "
            f"{seq_length} holds at most {seq_length + 1}. Raise seq_length, or prepare the chats "
            f"with --max-length {seq_length + 1}."
        )
