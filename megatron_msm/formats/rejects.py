"""PREFIX.rejects.jsonl: every input line that is not a row of the dataset, and why."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.background_hash import HashedFile

REJECTS_SUFFIX = ".rejects.jsonl"
_SNIPPET_CHARACTERS = 120


class Reject(NamedTuple):
    """One rejected line."""

    file: str
    line: int
    """1-based."""
    byte_offset: int
    """Where the line begins in its file."""
    reason: str
    snippet: str = ""
    """The line's beginning; bytes that are not UTF-8 are shown as U+FFFD."""


def snippet_of(raw: bytes) -> str:
    """Return the beginning of a line as text that any terminal and JSON reader takes."""
    text = raw[: 4 * _SNIPPET_CHARACTERS].decode(errors="replace").rstrip("\r\n")
    return text[:_SNIPPET_CHARACTERS]


class RejectWriter:
    """Writes rejects one by one; the file exists, empty, when there are none."""

    def __init__(self, path: Path) -> None:
        self.num_rejects = 0
        self._file = HashedFile(path)

    def add(self, reject: Reject) -> None:
        """Append one reject."""
        self._file.write(orjson.dumps(reject._asdict(), option=orjson.OPT_APPEND_NEWLINE))
        self.num_rejects += 1

    def finalize(self) -> None:
        """Flush to disk and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def written(self) -> HashedFile:
        """Return the finished file, which knows its size and hash."""
        return self._file

    def close(self) -> None:
        """Close without flushing to disk, as after an error."""
        self._file.close()


def read_rejects(path: Path) -> Iterator[Reject]:
    """Yield the rejects of a file.

    Raises:
        DataFormatError: A line is not a reject.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                yield Reject(**orjson.loads(raw))
            except (orjson.JSONDecodeError, TypeError) as error:
                raise DataFormatError(
                    f"{path}:{number}: not a reject record ({error}). Prepare the dataset again."
                ) from None
