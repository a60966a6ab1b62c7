"""What a phase draws from each source, counted before anything runs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megatron_msm.data.blend import Blend
from megatron_msm.data.packing.index import Int64Array, PackingIndex
from megatron_msm.data.source import Source


@dataclass(frozen=True)
class SourceAccount:
    """What a phase draws from one source. A row drawn twice counts twice."""

    prefix: Path
    packs: int
    """Packed sequences visited."""
    rows: int
    """Rows drawn; the pieces of a cut row count once a pass."""
    rendered_tokens: int
    """Tokens of those rows, prompts and templates included."""
    loss_tokens: int
    """Tokens that count in the loss: for chats the assistant's."""
    processed_tokens: int
    """Positions computed, padding included."""
    epochs: float
    """Rendered tokens, as passes over the whole source."""


def account(blend: Blend) -> list[SourceAccount]:
    """Count what the phase draws from each source.

    Takes a moment for large chat datasets of which an unfinished pass is drawn: its masks are read.
    """
    visits = blend.order.visits_before(blend.order.total)
    return [_account(blend, index, count) for index, count in enumerate(visits)]


def _account(blend: Blend, index: int, count: int) -> SourceAccount:
    source, order = blend.dataset.sources[index], blend.order
    passes, unfinished, part = order.sources[index].split(count)
    total = passes * _whole_pass(source)
    if unfinished:
        chosen = order.first_visits(index, passes, unfinished)
        total = total + _count(source, source.packing_index, None, np.array(chosen))
    if part:
        assert source.part is not None, "visits to a part that does not exist"
        chosen = order.first_visits(index, None, part)
        total = total + _count(
            source, source.part.packing_index, source.part.rows, np.array(chosen)
        )
    rows, rendered, loss = total.tolist()
    return SourceAccount(
        prefix=source.prefix,
        packs=count,
        rows=rows,
        rendered_tokens=rendered,
        loss_tokens=loss,
        processed_tokens=count * source.packing_index.capacity,
        epochs=rendered / int(source.lengths.sum(dtype=np.int64)),
    )


def _whole_pass(source: Source) -> Int64Array:
    """Return rows, rendered tokens and loss tokens of one pass."""
    counts = source.manifest.counts
    is_chats = source.masks is not None
    loss = counts.loss_tokens if is_chats else int(source.packing_index.segments.length.sum())
    return np.array([len(source.lengths), counts.tokens, loss])


def _count(
    source: Source, packed: PackingIndex, rows: Int64Array | None, packs: Int64Array
) -> Int64Array:
    """Return rows, rendered tokens and loss tokens of some packed sequences."""
    is_chosen = np.zeros(len(packed), np.bool_)
    is_chosen[packs] = True
    here = np.repeat(is_chosen, np.diff(packed.offsets))
    documents, lengths = packed.segments.document[here], packed.segments.length[here]
    num_rows = len(np.unique(documents))
    # The first token of a row is read, not predicted.
    rendered = int(lengths.sum()) + int((packed.segments.start[here] == 0).sum())
    if source.masks is None:
        return np.array([num_rows, rendered, int(lengths.sum())])
    in_dataset = documents if rows is None else rows[documents]
    loss = sum(source.count_loss_tokens(int(row)) for row in in_dataset)
    return np.array([num_rows, rendered, loss])
