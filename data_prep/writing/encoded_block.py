"""What a worker makes of a block of lines: everything the writer has to write, ready to be written.

One pickled object a block, of a few arrays: between processes nothing is sent line by line.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_prep.reading.records import Blank, Carried, Line
from megatron_msm.formats.indexed_dataset import TokenArray
from megatron_msm.formats.manifest import Counts
from megatron_msm.formats.provenance import ProvenanceRow, provenance_table
from megatron_msm.formats.rejects import Reject

Number = TypeVar("Number", bound=np.generic)
RowOverlong = Literal["truncated", "continued"] | None
"""A row that ends before its line does, or that goes on where the line's previous row ended."""


class Row(NamedTuple):
    """One row of the dataset."""

    tokens: TokenArray
    provenance: ProvenanceRow
    mask: npt.NDArray[np.uint8] | None = None
    overlong: RowOverlong = None
    lost_bytes: int = 0
    """Bytes of its text that the tokenizer leaves out."""
    changes: tuple[str, ...] = ()
    """What was changed in the line to bring it into the form that is read."""


class Dropped(NamedTuple):
    """A line that an option leaves out; unlike a reject it is no error."""

    record: Reject


Outcome = Row | Reject | Blank | Dropped


class EncodedBlock(NamedTuple):
    """The rows of a block, and what became of its other lines."""

    tokens: TokenArray
    """[sum(lengths)] In the dtype of the dataset."""
    lengths: npt.NDArray[np.int32]
    """[rows]"""
    mask: npt.NDArray[np.uint8] | None
    """[sum(lengths)] 1 where the loss counts; None for a dataset without a mask."""
    provenance: pa.Table
    """[rows]"""
    rejects: list[Reject]
    """In the order of the lines, dropped ones included."""
    counts: Counts
    """What became of the block's lines; how many were read is the writer's to say."""


def gather(
    outcomes: Iterable[Outcome],
    *,
    dtype: np.dtype[np.integer],
    has_mask: bool,
    carry: Sequence[str] = (),
) -> EncodedBlock:
    """Put the outcomes of a block's lines together."""
    rows: list[Row] = []
    rejects: list[Reject] = []
    num_blank = num_dropped = 0
    for outcome in outcomes:
        if isinstance(outcome, Row):
            rows.append(outcome)
        elif isinstance(outcome, Reject):
            rejects.append(outcome)
        elif isinstance(outcome, Blank):
            num_blank += 1
        else:
            rejects.append(outcome.record)
            num_dropped += 1
    masks = [row.mask for row in rows if row.mask is not None]
    assert not has_mask or len(masks) == len(rows), "every row of this dataset has a mask"
    lengths = np.fromiter((len(row.tokens) for row in rows), np.int32, len(rows))
    mask = _joined(masks, np.dtype(np.uint8)) if has_mask else None
    num_tokens = int(lengths.sum(dtype=np.int64))
    return EncodedBlock(
        tokens=_joined([row.tokens for row in rows], dtype),
        lengths=lengths,
        mask=mask,
        provenance=provenance_table([row.provenance for row in rows], carry),
        rejects=rejects,
        counts=Counts(
            kept=len(rows),
            rejected=len(rejects),
            tokens=num_tokens,
            loss_tokens=num_tokens if mask is None else int(mask.sum(dtype=np.int64)),
            blank=num_blank,
            overlong_dropped=num_dropped,
            overlong_truncated=sum(row.overlong == "truncated" for row in rows),
            extra_rows=sum(row.overlong == "continued" for row in rows),
            lost_bytes=sum(row.lost_bytes for row in rows),
            changes=Counter(change for row in rows for change in row.changes),
        ),
    )


def provenance_row(
    line: Line, carried: Carried, *, text: str, utf8: bytes, num_tokens: int
) -> ProvenanceRow:
    """Return the provenance of a row made from `line`, whose text (as encoded) is `text`."""
    return ProvenanceRow(
        line.file,
        line.number,
        carried.id,
        carried.spec_id,
        carried.clause_ids,
        carried.domain,
        carried.subdomain,
        carried.doc_type,
        carried.idea,
        carried.role,
        len(text),
        num_tokens,
        hashlib.sha256(utf8).hexdigest(),
        carried.extra,
    )


def _joined(arrays: list[npt.NDArray[Number]], dtype: np.dtype[Number]) -> npt.NDArray[Number]:
    # The encoders have looked up every id in a table of the vocabulary, which the dtype covers.
    return np.concatenate([np.empty(0, dtype), *arrays], dtype=dtype, casting="unsafe")
