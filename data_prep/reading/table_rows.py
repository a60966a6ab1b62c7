"""Rows of Parquet and Arrow files as JSON lines, so that one parser judges all inputs.

A row that JSON cannot hold (bytes, text that is not UTF-8) comes out as unreadable, with its
reason.
"""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.reading.blocks import NO_OFFSET, Block
from data_prep.reading.inputs import format_of
from megatron_msm.errors import DataFormatError

_ROWS_AT_A_TIME = 512


def table_blocks(path: Path) -> Iterator[Block]:
    """Yield the rows of one file.

    Raises:
        DataFormatError: The file cannot be read.
    """
    size = path.stat().st_size
    row = 0
    try:
        num_rows, batches = _open(path)
        for batch in batches:
            share = size * batch.num_rows // max(num_rows, 1)
            yield from _blocks(str(path), batch, row, share)
            row += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataFormatError(
            f"{path}: cannot be read as {format_of(path)} after row {row}: {error}. "
            "Copy or make the file again."
        ) from None


def _open(path: Path) -> tuple[int, Iterator[pa.RecordBatch]]:
    if format_of(path) == "parquet":
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        return file.metadata.num_rows, file.iter_batches(batch_size=_ROWS_AT_A_TIME)
    # The first pass reads only the frame of each record batch: the file is a memory map.
    num_rows = sum(batch.num_rows for batch in _record_batches(path))
    return num_rows, (part for batch in _record_batches(path) for part in _slices(batch))


def _record_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        try:
            stream = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(source)
            for number in range(file.num_record_batches):
                yield file.get_batch(number)
            return
        yield from stream


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for first in range(0, batch.num_rows, _ROWS_AT_A_TIME):
        yield batch.slice(first, _ROWS_AT_A_TIME)


def _blocks(name: str, batch: pa.RecordBatch, first_row: int, num_bytes: int) -> Iterator[Block]:
    lines = _json_lines(batch)
    if lines is not None:
        yield Block(name, first_row + 1, NO_OFFSET, b"".join(lines), len(lines), num_bytes)
        return
    for index in range(batch.num_rows):
        number, share = first_row + index + 1, num_bytes // batch.num_rows
        try:
            (row,) = batch.slice(index, 1).to_pylist()
            line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        except (TypeError, ValueError, pa.ArrowException) as error:
            reason = f"the row cannot be written as JSON ({error})"
            yield Block(name, number, NO_OFFSET, b"", 1, share, unreadable=reason)
        else:
            yield Block(name, number, NO_OFFSET, line, 1, share)


def _json_lines(batch: pa.RecordBatch) -> list[bytes] | None:
    """Return the rows as JSON, or None if one of them cannot be written."""
    try:
        return [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in batch.to_pylist()]
    except (TypeError, ValueError, pa.ArrowException):
        return None
