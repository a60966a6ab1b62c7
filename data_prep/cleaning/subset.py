"""`msm prep subset`: a share of a corpus, such that a smaller share is part of every larger one.

Rows are ranked by a hash of their `id`, or of the whole line where there is none, and the first of
them are taken, in the order of the file. So the subsets of a study are nested, and twins of paired
corpora, which have one id, are taken or left together.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from data_prep.reading.inputs import expand_inputs
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Line
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import write_bytes_atomic


class Subset(NamedTuple):
    """What was taken."""

    rows: int
    of: int


def write_subset(sources: Sequence[Path], out: Path, *, share: float) -> Subset:
    """Write a share of some files' rows, each line as it stands; at least one row.

    Args:
        sources: JSONL (also .gz, .zst), Parquet, Arrow, `datasets` folders, patterns.
        out: The JSONL file.
        share: Of the rows, above 0, at most 1.

    Raises:
        DataFormatError: A line is not a JSON object, or there is none.
    """
    ranks = sorted((_rank(line), position) for position, line in enumerate(_rows_of(sources)))
    if not ranks:
        raise DataFormatError(f"{sources[0]}: no rows to take a share of.")
    number = max(1, round(share * len(ranks)))
    taken = {position for _, position in ranks[:number]}
    lines = [
        line.raw.rstrip(b"\r\n") + b"\n"
        for position, line in enumerate(_rows_of(sources))
        if position in taken
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(out, b"".join(lines))
    return Subset(number, len(ranks))


def _rows_of(sources: Sequence[Path]) -> Iterator[Line]:
    for line in LineReader(expand_inputs(sources)):
        if line.raw.strip() or line.over_limit is not None or line.unreadable is not None:
            yield line


def _rank(line: Line) -> bytes:
    where = f"{line.file}:{line.number}"
    if line.over_limit is not None or line.unreadable is not None:
        why = line.unreadable or f"longer than {line.over_limit} bytes"
        raise DataFormatError(f"{where}: {why}. Repair the line, or leave it out.")
    try:
        row = orjson.loads(line.raw)
    except orjson.JSONDecodeError as error:
        raise DataFormatError(f"{where}: not valid JSON ({error.msg}). Repair the line.") from None
    if not isinstance(row, dict):
        raise DataFormatError(f"{where}: not a JSON object. Give one object a line.")
    own = row.get("id")
    return rank_of(line.raw.strip() if own in (None, "") else str(own).encode())


def rank_of(key: bytes) -> bytes:
    """Return by what rows are ordered to take some of them: a hash of their ids."""
    return hashlib.sha256(key).digest()
