"""Streams of bytes out of compressed files, which say when a file is torn.

`zstandard`'s own stream reader ends in silence at a truncated frame; here that is an error.
"""

import gzip
import zlib
from typing import BinaryIO, Protocol, cast

import zstandard

from megatron_msm.errors import DataFormatError

_ZSTD_FEED = 16 << 10
"""Compressed bytes decoded at a time, so that a file of one repeated byte stays in memory."""


class Readable(Protocol):
    """What a reader of lines needs."""

    def read(self, size: int, /) -> bytes:
        """Return at most about `size` bytes; none at the end."""
        ...


class GzipReader:
    """Reads a .gz file, several members included."""

    def __init__(self, file: Readable, name: str) -> None:
        self._file = gzip.GzipFile(fileobj=cast(BinaryIO, file), mode="rb")
        self._name = name

    def read(self, size: int, /) -> bytes:
        """Return decompressed bytes.

        Raises:
            DataFormatError: The file is torn or not gzip.
        """
        try:
            return self._file.read(size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _torn(self._name, "gzip", error) from None


class ZstdReader:
    """Reads a .zst file, several frames included."""

    def __init__(self, file: Readable, name: str) -> None:
        self._file = file
        self._name = name
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._is_inside = False
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        """Return decompressed bytes; more than `size` when the data is dense.

        Raises:
            DataFormatError: The file is torn or not zstd.
        """
        parts: list[bytes] = []
        num_bytes = 0
        while num_bytes < size:
            feed = self._pending or self._file.read(_ZSTD_FEED)
            if not feed:
                if self._is_inside:
                    raise _torn(self._name, "zstd", "it ends inside a frame")
                break
            part = self._decode(feed)
            parts.append(part)
            num_bytes += len(part)
        return b"".join(parts)

    def _decode(self, feed: bytes) -> bytes:
        try:
            part = self._frame.decompress(feed)
        except zstandard.ZstdError as error:
            raise _torn(self._name, "zstd", error) from None
        self._is_inside, self._pending = True, b""
        if self._frame.eof:
            self._is_inside, self._pending = False, self._frame.unused_data
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        return part


def _torn(name: str, kind: str, error: object) -> DataFormatError:
    return DataFormatError(
        f"{name}: cannot be decompressed as {kind}: {error}. Its lines cannot be accounted for; "
        "copy or make the file again."
    )
