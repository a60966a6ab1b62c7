"""Blocks of whole input lines: what is read, sent to a worker and encoded at a time.

The lines of a block are cut apart only where they are parsed, so that the process that reads and
writes files does nothing per line.
"""

from collections.abc import Iterator
from typing import NamedTuple

from data_prep.reading.records import Line

BLOCK_BYTES = 4 << 20
NO_OFFSET = -1
"""The byte offset of a row of a file that has no lines (Parquet, Arrow)."""


class Block(NamedTuple):
    """Consecutive lines of one input file."""

    file: str
    """The path as given on the command line."""
    first_line: int
    """1-based number of the first of them."""
    byte_offset: int
    """Where they begin in the file (after decompression), or `NO_OFFSET`."""
    data: bytes
    """The lines with their ends; of a line over the limit only the beginning."""
    num_lines: int
    num_bytes: int
    """What the block took of the file; for compressed files, Parquet and Arrow an estimate."""
    over_limit: int | None = None
    """The limit in bytes, for a block of one line that is longer than that."""
    unreadable: str | None = None
    """Why the one row of this block cannot be read; `data` is empty."""

    def lines(self) -> Iterator[Line]:
        """Cut the block into its lines."""
        if self.over_limit is not None or self.unreadable is not None:
            yield Line(
                self.file,
                self.first_line,
                self.byte_offset,
                self.data,
                self.over_limit,
                self.unreadable,
            )
            return
        file, number, offset = self.file, self.first_line, self.byte_offset
        step = 0 if offset == NO_OFFSET else 1
        for raw in _cut(self.data):
            yield Line(file, number, offset, raw)
            number += 1
            offset += step * len(raw)


def num_lines(data: bytes) -> int:
    """Count lines; the last one may lack its end."""
    return data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))


def _cut(data: bytes) -> Iterator[bytes]:
    # bytes.splitlines also cuts at a lone carriage return, which JSON takes for white space.
    *lines, rest = data.split(b"\n")
    for raw in lines:
        yield raw + b"\n"
    if rest:
        yield rest
