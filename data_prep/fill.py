"""The loop of a preparation: batches of items in, rows and rejects out, in line order."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.dataset_writer import DatasetWriter
from data_prep.records import Blank, Carried, Item, Line
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_text
from megatron_msm.formats.provenance import ProvenanceRow
from megatron_msm.formats.rejects import Reject, read_rejects

_BATCH_ITEMS = 1_000
_BATCH_BYTES = 8 << 20
_SCAN_REJECTS = 1_000
"""A run that has failed reads on, without encoding, until it knows this many rejects."""
_SHOWN_REJECTS = 5


RowOverlong = Literal["truncated", "continued"] | None
"""A row that ends before its line does, or that goes on where the line's previous row ended."""


class Row(NamedTuple):
    """One row of the dataset."""

    tokens: npt.NDArray[np.integer[Any]]
    provenance: ProvenanceRow
    mask: npt.NDArray[np.uint8] | None = None
    overlong: RowOverlong = None


class Dropped(NamedTuple):
    """A line that an option leaves out; unlike a reject it is no error."""

    record: Reject


Outcome = Row | Reject | Blank | Dropped
Encode = Callable[[list[Item]], Iterable[Outcome]]
"""Turns a batch into one outcome an item, in the items' order; a split chat gives several rows."""


def fill(writer: DatasetWriter, items: Iterable[Item], encode: Encode, *, max_rejects: int) -> None:
    """Encode all items into the writer.

    Once more than `max_rejects` lines are rejected the run has failed. The rest of the input is
    then only parsed, so that the message can tell about all the bad lines at once.

    Raises:
        DataFormatError: Too many lines were rejected.
    """
    num_items = 0
    for batch in batched(items):
        num_items += len(batch)
        has_failed = writer.num_rejects > max_rejects
        outcomes = (item for item in batch if isinstance(item, Reject)) if has_failed else None
        for outcome in encode(batch) if outcomes is None else outcomes:
            _record(writer, outcome)
        if writer.num_rejects >= max(_SCAN_REJECTS, max_rejects + 1):
            break
    if writer.num_rejects > max_rejects:
        raise _too_many_rejects(writer, num_items, max_rejects)


def batched(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Group items, bounded in number and in bytes."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += 0 if isinstance(item, Reject) else len(item.line.raw)
        if len(batch) >= _BATCH_ITEMS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def provenance_row(line: Line, carried: Carried, *, text: str, num_tokens: int) -> ProvenanceRow:
    """Return the provenance of a row made from `line`, whose text (as encoded) is `text`."""
    return ProvenanceRow(
        source_file=line.file,
        source_line=line.number,
        id=carried.id,
        spec_id=carried.spec_id,
        clause_ids=carried.clause_ids,
        domain=carried.domain,
        subdomain=carried.subdomain,
        doc_type=carried.doc_type,
        idea=carried.idea,
        role=carried.role,
        characters=len(text),
        tokens=num_tokens,
        sha256=sha256_of_text(text),
        extra=carried.extra,
    )


def _record(writer: DatasetWriter, outcome: Outcome) -> None:
    if isinstance(outcome, Reject):
        writer.reject(outcome)
    elif isinstance(outcome, Blank):
        writer.skip_blank()
    elif isinstance(outcome, Dropped):
        writer.drop(outcome.record)
    else:
        writer.add(outcome.tokens, outcome.provenance, outcome.mask)
        writer.overlong_truncated += outcome.overlong == "truncated"
        if outcome.overlong == "continued":
            writer.join_rows()


def _too_many_rejects(writer: DatasetWriter, num_lines: int, max_rejects: int) -> DataFormatError:
    kept = writer.keep_rejects()
    count = writer.num_rejects
    shown = "\n".join(_shown(kept))
    return DataFormatError(
        f"{count} of the {num_lines} lines read cannot become rows, and --max-rejects allows "
        f"{max_rejects}:\n{shown}\nAll of them are in {kept}. Repair the lines, or leave them out "
        f"with --max-rejects {count}."
    )


def _shown(path: Path) -> Iterator[str]:
    rejects = read_rejects(path)
    for reject in islice(rejects, _SHOWN_REJECTS):
        yield f"  {reject.file}:{reject.line}: {reject.reason}"
    rest = sum(1 for _ in rejects)
    if rest:
        yield f"  and {rest} more"
