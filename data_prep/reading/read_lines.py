"""Input files in blocks of whole lines, with line numbers and byte offsets, in bounded memory.

JSONL, .gz and .zst are cut at line ends; rows of Parquet and Arrow come out as JSON lines.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data_prep.reading.blocks import BLOCK_BYTES, Block, num_lines
from data_prep.reading.decompress import GzipReader, Readable, ZstdReader
from data_prep.reading.inputs import STDIN, check_inputs, format_of
from data_prep.reading.records import Line
from data_prep.reading.shards import FilePart, Shard, parts_of
from data_prep.reading.table_rows import table_blocks
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.background_hash import BackgroundHash
from megatron_msm.formats.manifest import InputEntry, InputPart

_KEPT_OF_LONG_LINE = 1 << 10

MAX_LINE_BYTES = 64 << 20
"""A longer line is rejected instead of being held in memory."""


class LineReader:
    """Reads input files, and knows their sizes and hashes once they are read.

    Args:
        inputs: Input files, read in this order.
        shard: The part of them to read; None: everything.
        max_line_bytes: Longer lines come out cut and marked.

    Raises:
        DataFormatError: A path is no readable file, or is given twice.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        *,
        shard: Shard | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        check_inputs(list(inputs))
        self.parts = parts_of(list(inputs), shard)
        self.entries: list[InputEntry] = []
        self._max_line_bytes = max_line_bytes

    def __iter__(self) -> Iterator[Line]:
        """Yield every line of every file; `entries` grows by one at the end of each file."""
        for block in self.blocks():
            yield from block.lines()

    def blocks(self) -> Iterator[Block]:
        """Yield the same lines in blocks.

        Raises:
            DataFormatError: A file is torn, or cannot be read to its end.
        """
        self.entries.clear()
        for part in self.parts:
            try:
                yield from self._blocks_of(part)
            except OSError as error:
                raise _unreadable(part.path, error) from None

    def hash_inputs(self) -> list[InputEntry]:
        """Return the entries that reading would give, without cutting lines.

        Raises:
            DataFormatError: An input cannot be read.
        """
        entries = []
        for part in self.parts:
            try:
                entries.append(_whole_entry(part.path) if part.is_whole else _part_entry(part))
            except OSError as error:
                raise _unreadable(part.path, error) from None
        return entries

    def _blocks_of(self, part: FilePart) -> Iterator[Block]:
        kind = format_of(part.path)
        if kind in ("parquet", "arrow"):
            yield from table_blocks(part.path)
            self.entries.append(_whole_entry(part.path))
            return
        with open_input(part.path) as file:
            if kind == "jsonl":
                yield from self._plain(part, file)
            else:
                yield from self._compressed(part.path, file)

    def _plain(self, part: FilePart, file: BinaryIO) -> Iterator[Block]:
        before = LinesOfPart(file, 0, part.start).pass_over()
        if not part.is_whole:
            file.seek(before.offset)
        cutter = _LineCutter(
            str(part.path), self._max_line_bytes, line=before.num_lines + 1, offset=before.offset
        )
        stream = LinesOfPart(file, before.offset, part.stop)
        digest = BackgroundHash(before.digest)
        yield from cutter.blocks(stream, on_data=digest.update)
        self.entries.append(_entry(part, before, cutter.offset, digest.hexdigest()))

    def _compressed(self, path: Path, file: BinaryIO) -> Iterator[Block]:
        name = str(path)
        hashed = _HashedInput(file)
        is_gzip = format_of(path) == "gzip"
        stream: Readable = GzipReader(hashed, name) if is_gzip else ZstdReader(hashed, name)
        for block in _LineCutter(name, self._max_line_bytes).blocks(stream):
            yield block._replace(num_bytes=hashed.take_num_bytes())
        while hashed.read(BLOCK_BYTES):
            pass
        self.entries.append(hashed.entry(name))


def open_input(path: Path) -> BinaryIO:
    """Open an input file, or standard input."""
    if path == STDIN:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return path.open("rb", buffering=0)


def _whole_entry(path: Path) -> InputEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return InputEntry(path=str(path), bytes=file.tell(), sha256=digest)


def _part_entry(part: FilePart) -> InputEntry:
    with open_input(part.path) as file:
        before = LinesOfPart(file, 0, part.start).pass_over()
        file.seek(before.offset)
        after = LinesOfPart(file, before.offset, part.stop).pass_over(before.digest.copy())
        return _entry(part, before, after.offset, after.digest.hexdigest())


def _entry(part: FilePart, before: "_Passed", stop: int, sha256: str) -> InputEntry:
    if part.is_whole:
        return InputEntry(path=str(part.path), bytes=stop, sha256=sha256)
    return InputEntry(
        path=str(part.path),
        bytes=part.path.stat().st_size,
        sha256=sha256,
        part=InputPart(start=before.offset, stop=stop, before_sha256=before.digest.hexdigest()),
    )


def _unreadable(path: Path, error: OSError) -> DataFormatError:
    return DataFormatError(
        f"{path}: cannot be read: {error.strerror or error}. Check the file and its permissions."
    )


class _Passed(NamedTuple):
    """What was read over: up to where, how many lines, and the digest of it all."""

    offset: int
    num_lines: int
    digest: "hashlib._Hash"


class LinesOfPart:
    """A stream of the lines that begin before `stop`.

    Args:
        file: Positioned at `offset`, the beginning of a line.
        offset: In bytes.
        stop: None: to the end of the file.
    """

    def __init__(self, file: Readable, offset: int, stop: int | None) -> None:
        self._file = file
        self._offset = offset
        self._stop = stop

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; none at the end."""
        if self._stop is None:
            return self._file.read(size)
        # The line that begins last before `stop` ends with the first line end at or after this.
        last = self._stop - 1
        if self._offset > last:
            return b""
        if self._offset < last:
            data = self._file.read(min(size, last - self._offset))
        else:
            data = self._file.read(size)
            cut = data.find(b"\n") + 1
            if not cut:
                return data
            data = data[:cut]
        self._offset += len(data)
        return data

    def pass_over(self, digest: "hashlib._Hash | None" = None) -> _Passed:
        """Read everything, and count and hash it; `digest` is of what goes before."""
        digest, num_lines, offset = digest or hashlib.sha256(), 0, self._offset
        while data := self.read(BLOCK_BYTES):
            digest.update(data)
            num_lines += data.count(b"\n")
            offset += len(data)
        return _Passed(offset, num_lines, digest)


class _LineCutter:
    """Cuts a stream of bytes into blocks at line ends.

    Attributes:
        offset: Bytes of the stream that went into blocks so far.
    """

    def __init__(self, name: str, max_line_bytes: int, *, line: int = 1, offset: int = 0) -> None:
        self.offset = offset
        self._name = name
        self._line = line
        self._limit = max_line_bytes

    def blocks(
        self,
        stream: Readable,
        *,
        on_data: Callable[[bytes], None] | None = None,
    ) -> Iterator[Block]:
        """Yield the stream's lines."""
        rest = b""
        while True:
            chunk = stream.read(BLOCK_BYTES)
            data = rest + chunk if rest else chunk
            if not data:
                return
            cut = data.rfind(b"\n") + 1 if chunk else len(data)
            if on_data is not None and cut:
                on_data(data if cut == len(data) else data[:cut])
            yield from self._emit(data[:cut])
            rest = data[cut:]
            if len(rest) > self._limit:
                yield from self._long_line(rest, stream, on_data)
                rest = self._after_long
            if not chunk:
                return

    def _emit(self, data: bytes) -> Iterator[Block]:
        if len(data) <= self._limit + 1 and (len(data) <= self._limit or data.endswith(b"\n")):
            if data:
                yield self._block(data)
            return
        begin = 0
        for start, stop in _line_spans(data):
            if stop - start - data.endswith(b"\n", start, stop) <= self._limit:
                continue
            if begin < start:
                yield self._block(data[begin:start])
            yield self._over(data[start : min(stop, start + _KEPT_OF_LONG_LINE)], stop - start)
            begin = stop
        if begin < len(data):
            yield self._block(data[begin:])

    def _long_line(
        self, head: bytes, stream: Readable, on_data: Callable[[bytes], None] | None
    ) -> Iterator[Block]:
        size = 0
        kept, self._after_long = head[:_KEPT_OF_LONG_LINE], b""
        part = head
        while part:
            cut = part.find(b"\n") + 1
            used = part[:cut] if cut else part
            size += len(used)
            if on_data is not None:
                on_data(used)
            if cut:
                self._after_long = part[cut:]
                break
            part = stream.read(BLOCK_BYTES)
        yield self._over(kept, size)

    def _block(self, data: bytes) -> Block:
        count = num_lines(data)
        block = Block(self._name, self._line, self.offset, data, count, len(data))
        self._line += count
        self.offset += len(data)
        return block

    def _over(self, head: bytes, size: int) -> Block:
        block = Block(self._name, self._line, self.offset, head, 1, size, over_limit=self._limit)
        self._line += 1
        self.offset += size
        return block


def _line_spans(data: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(data):
        stop = data.find(b"\n", start) + 1 or len(data)
        yield start, stop
        start = stop


class _HashedInput:
    """A file that is hashed while a decompressor reads it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = BackgroundHash()
        self._num_bytes = 0
        self._taken = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        self._num_bytes += len(data)
        return data

    def take_num_bytes(self) -> int:
        """Return the bytes read since the last call."""
        count = self._num_bytes - self._taken
        self._taken = self._num_bytes
        return count

    def entry(self, name: str) -> InputEntry:
        return InputEntry(path=name, bytes=self._num_bytes, sha256=self._digest.hexdigest())
