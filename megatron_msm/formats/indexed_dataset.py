r"""Megatron's indexed dataset: PREFIX.bin holds the tokens, PREFIX.idx where each document is.

    PREFIX.bin   the tokens of all documents, one after the other
    PREFIX.idx   9 bytes  "MMIDIDX\0\0"
                 uint64   version, 1
                 uint8    code of the tokens' dtype
                 uint64   number of sequences n
                 uint64   number of document indices, n + 1
                 int32[n] tokens of each sequence
                 int64[n] byte offset of each sequence in PREFIX.bin
                 int64[n + 1] first sequence of each document, and the end: 0, 1, ..., n

Everything is little-endian. Here one sequence is one document. The code needs numpy alone, so that
tokenizing workers start at once; megatron-core's own `IndexedDataset` reads the same files.

Source: megatron/core/datasets/indexed_dataset.py, megatron-core 0.16.1.
"""

import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.background_hash import HashedFile

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_DTYPE_CODES: dict[np.dtype, int] = {
    np.dtype(np.uint8): 1,
    np.dtype(np.int8): 2,
    np.dtype(np.int16): 3,
    np.dtype(np.int32): 4,
    np.dtype(np.int64): 5,
    np.dtype(np.float64): 6,
    np.dtype(np.float32): 7,
    np.dtype(np.uint16): 8,
}
_DTYPES = {code: dtype for dtype, code in _DTYPE_CODES.items()}
_UINT16_LIMIT = 65_500
"""Vocabularies below this size are stored as uint16. Source: `DType.optimal_dtype`, same file."""
_INDEX_CHUNK = 1 << 20
"""Rows of the index computed and written at a time, so that the offsets never sit in memory."""

TokenArray = npt.NDArray[np.integer]
LengthArray = npt.NDArray[np.int32]


def token_dtype(vocab_size: int) -> np.dtype[np.integer]:
    """Return the dtype in which Megatron stores tokens of a vocabulary of this size."""
    return np.dtype(np.uint16 if vocab_size < _UINT16_LIMIT else np.int32)


def bin_path(prefix: Path) -> Path:
    """Return `PREFIX.bin`; a dot in the prefix's own name is kept."""
    return Path(f"{prefix}.bin")


def idx_path(prefix: Path) -> Path:
    """Return `PREFIX.idx`; a dot in the prefix's own name is kept."""
    return Path(f"{prefix}.idx")


def mask_prefix(prefix: Path) -> Path:
    """Return the prefix of the uint8 dataset that marks which tokens carry loss."""
    return Path(f"{prefix}.mask")


class IndexedDatasetWriter:
    """Writes documents to `PREFIX.bin` one by one, and `PREFIX.idx` at the end.

    Memory grows by four bytes a document. Without `finalize` there is no index, so a run that
    dies leaves nothing that a reader opens. As a context manager it closes the file and does not
    finalize.
    """

    def __init__(self, prefix: Path, dtype: npt.DTypeLike) -> None:
        self.prefix = prefix
        self.dtype = np.dtype(dtype)
        assert self.dtype in _DTYPE_CODES, f"Megatron has no code for dtype {self.dtype}"
        self.num_tokens = 0
        self._lengths = array("i")
        assert self._lengths.itemsize == 4, "array('i') must be int32"
        self._limits = np.iinfo(self.dtype)
        self._bin = HashedFile(bin_path(prefix))
        self._idx: HashedFile | None = None

    def __len__(self) -> int:
        """Return the number of documents added so far."""
        return len(self._lengths)

    def add_document(self, tokens: npt.ArrayLike) -> None:
        """Append one document.

        Args:
            tokens: [length] token ids.

        Raises:
            DataFormatError: An id does not fit the dtype.
        """
        ids: TokenArray = np.asarray(tokens)
        self.add_documents(ids, [len(ids)])

    def add_documents(self, tokens: TokenArray, lengths: Sequence[int] | LengthArray) -> None:
        """Append several documents whose tokens lie one after the other.

        Args:
            tokens: [sum(lengths)] token ids.
            lengths: Tokens of each document.

        Raises:
            DataFormatError: An id does not fit the dtype.
        """
        counts = np.asarray(lengths, np.int32)
        total = int(counts.sum(dtype=np.int64))
        assert total == len(tokens), f"{total} tokens announced, {len(tokens)} given"
        self._check_fits(tokens)
        self._bin.write(tokens.astype(self.dtype, copy=False).tobytes())
        self._lengths.frombytes(counts.tobytes())
        self.num_tokens += len(tokens)

    def finalize(self) -> None:
        """Flush the tokens to disk and write the index."""
        _flush(self._bin)
        self._bin.close()
        self._idx = HashedFile(idx_path(self.prefix))
        for part in self._index_parts():
            self._idx.write(part)
        _flush(self._idx)
        self._idx.close()

    def written(self) -> tuple[HashedFile, HashedFile]:
        """Return the finished PREFIX.bin and PREFIX.idx, which know their sizes and hashes."""
        assert self._idx is not None, "not finalized yet"
        return self._bin, self._idx

    def close(self) -> None:
        """Close the file without an index, as after an error."""
        self._bin.close()
        if self._idx is not None:
            self._idx.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_fits(self, tokens: TokenArray) -> None:
        if tokens.dtype == self.dtype or not len(tokens):
            return
        low, high = int(tokens.min()), int(tokens.max())
        if low < self._limits.min or high > self._limits.max:
            raise DataFormatError(
                f"{bin_path(self.prefix)}: token id {low if low < self._limits.min else high} "
                f"does not fit {self.dtype}. The vocabulary size that the dtype was chosen for "
                "must cover every id: use token_dtype(largest id + 1)."
            )

    def _index_parts(self) -> Iterator[bytes]:
        count = len(self._lengths)
        yield _HEADER.pack(_MAGIC, _VERSION, _DTYPE_CODES[self.dtype], count, count + 1)
        lengths = np.frombuffer(self._lengths, dtype=np.int32) if count else np.zeros(0, np.int32)
        yield lengths.tobytes()
        offset = 0
        for first in range(0, count, _INDEX_CHUNK):
            sizes = lengths[first : first + _INDEX_CHUNK].astype(np.int64) * self.dtype.itemsize
            ends = np.cumsum(sizes) + offset
            yield (ends - sizes).tobytes()
            offset = int(ends[-1])
        for first in range(0, count + 1, _INDEX_CHUNK):
            yield np.arange(first, min(first + _INDEX_CHUNK, count + 1), dtype=np.int64).tobytes()


class IndexedDataset:
    """Reads a dataset through memory maps: opening costs nothing, a row is a view of the file.

    Attributes:
        dtype: Dtype of the tokens.
        lengths: [n] int32, tokens of each document.
        offsets: [n] int64, byte offset of each document in PREFIX.bin.
        document_indices: [n + 1] int64.

    Raises:
        DataFormatError: A file is missing, torn, or not an indexed dataset.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        index_file, token_file = idx_path(prefix), bin_path(prefix)
        for path in (index_file, token_file):
            if not path.is_file():
                raise DataFormatError(
                    f"{path}: no such file. Give the PREFIX of a dataset, without .bin or .idx."
                )
        self.dtype, count, num_indices = _read_header(index_file)
        self.lengths: npt.NDArray[np.int32]
        self.offsets: npt.NDArray[np.int64]
        self.document_indices: npt.NDArray[np.int64]
        expected = _HEADER.size + 12 * count + 8 * num_indices
        _check_size(index_file, expected)
        index = np.memmap(index_file, mode="r")
        at = _HEADER.size
        self.lengths = np.frombuffer(index, np.int32, count, at)
        self.offsets = np.frombuffer(index, np.int64, count, at + 4 * count)
        self.document_indices = np.frombuffer(index, np.int64, num_indices, at + 12 * count)
        end = int(self.offsets[-1]) + int(self.lengths[-1]) * self.dtype.itemsize if count else 0
        _check_size(token_file, end)
        self._tokens = np.memmap(token_file, mode="r") if end else np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> TokenArray:
        """Return the tokens of one document, as a read-only view."""
        return self.get(row)

    def __iter__(self) -> Iterator[TokenArray]:
        return (self.get(row) for row in range(len(self)))

    def get(self, row: int, offset: int = 0, length: int | None = None) -> TokenArray:
        """Return `length` tokens of document `row` from token `offset` on; None means the rest.

        Raises:
            IndexError: The row, or the part of it, is not in the dataset.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"{self.prefix}: row {row} of a dataset of {len(self)} rows")
        size = int(self.lengths[row])
        length = size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > size:
            raise IndexError(
                f"{self.prefix}: tokens {offset} to {offset + length} of row {row}, "
                f"which has {size} tokens"
            )
        start = int(self.offsets[row]) + offset * self.dtype.itemsize
        return np.frombuffer(self._tokens, self.dtype, length, start)

    def largest_token(self) -> int:
        """Return the largest id of the dataset, -1 without tokens; reads all of it."""
        tokens = np.frombuffer(self._tokens, self.dtype)
        parts = range(0, len(tokens), _INDEX_CHUNK)
        return max((int(tokens[at : at + _INDEX_CHUNK].max()) for at in parts), default=-1)

    def span(self, first: int, stop: int) -> TokenArray:
        """Return the tokens of documents `first` to `stop - 1`, end to end, as a view."""
        count = int(self.lengths[first:stop].sum(dtype=np.int64))
        start = int(self.offsets[first]) if count else 0
        return np.frombuffer(self._tokens, self.dtype, count, start)


def _read_header(path: Path) -> tuple[np.dtype, int, int]:
    with path.open("rb") as file:
        content = file.read(_HEADER.size)
    if len(content) < _HEADER.size or not content.startswith(_MAGIC):
        raise DataFormatError(
            f"{path}: not the index of a Megatron dataset (it starts with {content[:9]!r} where "
            f"{_MAGIC!r} is needed). Prepare the dataset with `msm prep`."
        )
    _, version, code, count, num_indices = _HEADER.unpack(content)
    if version != _VERSION or code not in _DTYPES or num_indices != count + 1:
        raise DataFormatError(
            f"{path}: index version {version}, dtype code {code}, {count} sequences and "
            f"{num_indices} document indices. Needed are version {_VERSION}, a code from 1 to 8, "
            "and one sequence a document. Prepare the dataset with `msm prep`."
        )
    return _DTYPES[code], count, num_indices


def _check_size(path: Path, expected: int) -> None:
    found = path.stat().st_size
    if found != expected:
        raise DataFormatError(
            f"{path}: {found} bytes where the index announces {expected}. The file is torn or does "
            "not belong to this index; prepare the dataset again."
        )


def _flush(file: HashedFile) -> None:
    file.flush()
    os.fsync(file.fileno())
