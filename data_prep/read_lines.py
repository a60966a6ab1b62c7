"""Lines of input files, with their number and byte offset, in bounded memory."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from data_prep.records import Line
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.manifest import InputEntry

_BUFFER_BYTES = 1 << 20
_KEPT_OF_LONG_LINE = 1 << 10
_NOT_YET = (".gz", ".zst", ".parquet", ".xz", ".bz2")

MAX_LINE_BYTES = 64 << 20
"""A longer line is rejected instead of being held in memory."""


class LineReader:
    """Reads input files line by line, and knows their sizes and hashes once they are read.

    Args:
        paths: Input files, read in this order.
        max_line_bytes: Longer lines come out cut and marked.
        on_bytes: Called with the number of bytes of every line read, for a progress bar.

    Raises:
        DataFormatError: A path is no readable JSONL file, or is given twice.
    """

    def __init__(
        self,
        paths: list[Path],
        *,
        max_line_bytes: int = MAX_LINE_BYTES,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        check_inputs(paths)
        self.paths = paths
        self.entries: list[InputEntry] = []
        self._max_line_bytes = max_line_bytes
        self._on_bytes = on_bytes

    def __iter__(self) -> Iterator[Line]:
        """Yield every line of every file; `entries` grows by one at the end of each file."""
        self.entries.clear()
        for path in self.paths:
            digest = hashlib.sha256()
            size = 0
            with path.open("rb", buffering=_BUFFER_BYTES) as file:
                yield from self._lines_of(file, str(path), digest.update)
                size = file.tell()
            self.entries.append(InputEntry(path=str(path), bytes=size, sha256=digest.hexdigest()))

    def _lines_of(
        self, file: BinaryIO, name: str, update: Callable[[bytes], None]
    ) -> Iterator[Line]:
        number = offset = 0
        limit = self._max_line_bytes
        while raw := file.readline(limit + 1):
            number += 1
            update(raw)
            size = len(raw)
            if size <= limit or raw.endswith(b"\n"):
                yield Line(name, number, offset, raw)
            else:
                head = raw[:_KEPT_OF_LONG_LINE]
                while not raw.endswith(b"\n") and (raw := file.readline(limit + 1)):
                    update(raw)
                    size += len(raw)
                yield Line(name, number, offset, head, over_limit=limit)
            offset += size
            if self._on_bytes is not None:
                self._on_bytes(size)


def check_inputs(paths: list[Path]) -> None:
    """Check before any work that every input can be read.

    Raises:
        DataFormatError: A path is missing, a folder, compressed, or given twice.
    """
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            raise DataFormatError(
                f"{path}: a folder, where a JSONL file is needed. "
                f"Name its files, for example {path}/*.jsonl."
            )
        if not path.is_file():
            raise DataFormatError(f"{path}: no such file. Name an existing JSONL file.")
        if path.suffix in _NOT_YET:
            raise DataFormatError(
                f"{path}: {path.suffix} files cannot be read yet, plain JSONL is needed. "
                "Unpack or convert the file first."
            )
        if path.resolve() in seen:
            raise DataFormatError(f"{path}: given twice. Name every input once.")
        seen.add(path.resolve())


def hash_input(path: Path) -> InputEntry:
    """Return the entry that reading the file would give, without parsing it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return InputEntry(path=str(path), bytes=file.tell(), sha256=digest)
