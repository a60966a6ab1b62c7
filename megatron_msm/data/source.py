"""One dataset of a phase, opened, with its packed sequences."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_msm.config.data import PackingConfig
from megatron_msm.data.packing.index import Int64Array, PackingIndex
from megatron_msm.data.packing.index_file import stored_index
from megatron_msm.data.packing.packings import Packings
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.indexed_dataset import IndexedDataset, mask_prefix
from megatron_msm.formats.manifest import DatasetManifest, read_manifest


@dataclass(frozen=True)
class Part:
    """Packed sequences of some of a source's rows: the unfinished pass at the end."""

    rows: Int64Array
    """The rows, as the index's documents number them."""
    packing_index: PackingIndex


@dataclass(frozen=True)
class Source:
    """A dataset made by `msm prep` and its packed sequences."""

    prefix: Path
    manifest: DatasetManifest
    tokens: IndexedDataset
    masks: IndexedDataset | None
    """Where the loss counts; None for documents, where it counts everywhere."""
    packing_index: PackingIndex
    """A pass over all rows."""
    part: Part | None = None

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each row."""
        return self.tokens.lengths

    def count_loss_tokens(self, row: int) -> int:
        """Return how many tokens of a row count when predicted."""
        if self.masks is None:
            return max(int(self.lengths[row]) - 1, 0)
        return int(np.count_nonzero(self.masks[row][1:]))


def open_source(
    prefix: Path, *, seq_length: int, packing: PackingConfig, packings: Packings | None = None
) -> Source:
    """Open a dataset and pack it, or take the index stored beside it.

    Args:
        prefix: The dataset.
        seq_length: Positions of a packed sequence.
        packing: How.
        packings: Knows packings that were made already.

    Raises:
        ConfigError: A chat is longer than a sequence, or would be cut by the packing strategy.
        DataFormatError: The dataset is unfinished or damaged, or has nothing to train on.
    """
    manifest = read_manifest(prefix)
    tokens = IndexedDataset(prefix)
    is_chats = manifest.kind == "chats"
    if is_chats:
        _refuse_cut_chats(prefix, tokens, seq_length, packing)
    index = stored_index(prefix, manifest.sha256, tokens.lengths, seq_length, packing)
    if index is None:
        index = (packings or Packings()).pack(tokens.lengths, seq_length, packing)
    if len(index) == 0:
        raise DataFormatError(
            f"{prefix}: no document has two tokens or more, so there is nothing to train on. "
            "Prepare it from another input."
        )
    masks = IndexedDataset(mask_prefix(prefix)) if is_chats else None
    return Source(prefix, manifest, tokens, masks, index)


def draw_part(
    source: Source,
    order: Int64Array,
    *,
    tokens: int | None,
    packing: PackingConfig,
    packings: Packings,
) -> Part:
    """Pack some of a source's rows.

    Args:
        source: The source.
        order: The rows to draw, in this order.
        tokens: Draw only as many rows as hold so many tokens. Of documents the last row is cut to
            meet the number; chats are never cut, so their last row may exceed it.
        packing: How.
        packings: Knows packings that were made already.
    """
    lengths = source.lengths[order].astype(np.int64)
    if tokens is not None:
        ends = np.cumsum(lengths)
        num_rows = int(np.searchsorted(ends, tokens)) + 1
        order, lengths = order[:num_rows], lengths[:num_rows]
        if source.masks is None:
            lengths[-1] -= int(ends[num_rows - 1]) - tokens
    return Part(order, packings.pack(lengths, source.packing_index.capacity, packing))


def _refuse_cut_chats(
    prefix: Path, tokens: IndexedDataset, seq_length: int, packing: PackingConfig
) -> None:
    if packing.strategy == "concatenate":
        raise ConfigError(
            f"{prefix}: data.packing.strategy concatenate would cut chats, and train answers "
            "without their questions. Use best-fit or first-fit-shuffle for chats."
        )
    row = int(np.argmax(tokens.lengths))
    if int(tokens.lengths[row]) > seq_length + 1:
        raise DataFormatError(
            f"{prefix}: chat in row {row} has {tokens.lengths[row]} tokens, but seq_length "
            f"{seq_length} holds at most {seq_length + 1}. Raise seq_length, or prepare the chats "
            f"with --max-length {seq_length + 1}."
        )
