"""PREFIX.meta.parquet: where each row of a dataset comes from, row-aligned with PREFIX.idx.

Rows are written in groups of a fixed number, so memory stays bounded and the file's bytes depend
on the rows alone: a merge of two datasets equals one run over both inputs.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.background_hash import HashedFile

PROVENANCE_SUFFIX = ".meta.parquet"
_ROWS_PER_GROUP = 65_536


class ProvenanceRow(NamedTuple):
    """Where one row comes from. None where the input line does not say."""

    source_file: str
    source_line: int
    """1-based."""
    id: str | None
    spec_id: str | None
    clause_ids: list[str] | None
    domain: str | None
    subdomain: str | None
    doc_type: str | None
    idea: str | None
    role: str | None
    characters: int
    """Unicode characters of the text; for chats of the rendered conversation."""
    tokens: int
    """As in PREFIX.idx, an appended end-of-document token included."""
    sha256: str
    """Hash of the UTF-8 text; for chats of the rendered conversation."""
    extra: Mapping[str, str | None] = MappingProxyType({})
    """Further fields of the input line, named by `--carry`; a column each."""


CARRIED_TEXT_FIELDS = ("id", "spec_id", "domain", "subdomain", "doc_type", "idea", "role")
"""Fields of an input line that are carried over as they are; `clause_ids` is a list of texts."""

_SCHEMA = pa.schema(
    [
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_line", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("spec_id", pa.string()),
        pa.field("clause_ids", pa.list_(pa.string())),
        pa.field("domain", pa.string()),
        pa.field("subdomain", pa.string()),
        pa.field("doc_type", pa.string()),
        pa.field("idea", pa.string()),
        pa.field("role", pa.string()),
        pa.field("characters", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
assert (*_SCHEMA.names, "extra") == ProvenanceRow._fields
COLUMNS = tuple(_SCHEMA.names)
"""The columns that every dataset has."""


def provenance_table(rows: Sequence[ProvenanceRow], carry: Sequence[str] = ()) -> pa.Table:
    """Return rows as a table; the columns named by `carry` come from `extra`."""
    schema = _schema(carry)
    if not rows:
        return schema.empty_table()
    *columns, extras = zip(*rows, strict=True)
    columns += [tuple(extra.get(name) for extra in extras) for name in carry]
    arrays = [
        pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


class ProvenanceWriter:
    """Streams provenance rows to a parquet file.

    Args:
        path: The file.
        carry: Names of the columns that `extra` fills.
    """

    def __init__(self, path: Path, carry: Sequence[str] = ()) -> None:
        self._file = HashedFile(path)
        self._schema = _schema(carry)
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        self._tables: list[pa.Table] = []
        self._num_rows = 0

    def add(self, table: pa.Table) -> None:
        """Append rows, from `provenance_table` or `read_provenance_tables`."""
        self._tables.append(table)
        self._num_rows += table.num_rows
        if self._num_rows >= _ROWS_PER_GROUP:
            self._write_groups(_ROWS_PER_GROUP)

    def finalize(self) -> None:
        """Write what is left and the footer."""
        self._write_groups(1)
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def written(self) -> HashedFile:
        """Return the finished file, which knows its size and hash."""
        return self._file

    def close(self) -> None:
        """Close after an error."""
        self._writer.close()
        self._file.close()

    def _write_groups(self, least: int) -> None:
        """Write full groups while `least` rows are there; what is left waits for more."""
        table = pa.concat_tables([self._schema.empty_table(), *self._tables])
        while table.num_rows >= least:
            # One chunk a column: the file's bytes must not depend on how the rows arrived.
            group = table.slice(0, _ROWS_PER_GROUP).combine_chunks()
            self._writer.write_table(group, row_group_size=_ROWS_PER_GROUP)
            table = table.slice(_ROWS_PER_GROUP)
        self._tables, self._num_rows = [table], table.num_rows


def read_provenance_tables(path: Path) -> Iterator[pa.Table]:
    """Yield all rows as tables, a group at a time.

    Raises:
        DataFormatError: The file is not one that `ProvenanceWriter` wrote.
    """
    file = _open(path)
    for group in range(file.num_row_groups):
        yield file.read_row_group(group)


def read_provenance(path: Path) -> Iterator[ProvenanceRow]:
    """Yield all rows, a group at a time.

    Raises:
        DataFormatError: The file is not one that `ProvenanceWriter` wrote.
    """
    for table in read_provenance_tables(path):
        for record in table.to_pylist():
            yield _row(record)


def read_provenance_row(path: Path, row: int) -> ProvenanceRow:
    """Read one row; only its group is decoded.

    Raises:
        DataFormatError: The file is broken, or has no such row.
    """
    return read_provenance_rows(path, [row])[0]


def read_provenance_rows(path: Path, rows: Sequence[int]) -> list[ProvenanceRow]:
    """Read some rows, in the order given; each group that holds any is decoded once.

    Raises:
        DataFormatError: The file is broken, or has no such row.
    """
    file = _open(path)
    by_group: dict[int, list[int]] = defaultdict(list)
    for row in dict.fromkeys(rows):
        if not 0 <= row < file.metadata.num_rows:
            raise DataFormatError(
                f"{path}: row {row} is not among its {file.metadata.num_rows} rows. "
                "Check the dataset with `msm prep check`."
            )
        by_group[row // _ROWS_PER_GROUP].append(row)
    found: dict[int, ProvenanceRow] = {}
    for group, members in by_group.items():
        taken = file.read_row_group(group).take([row % _ROWS_PER_GROUP for row in members])
        for row, record in zip(members, taken.to_pylist(), strict=True):
            found[row] = _row(record)
    return [found[row] for row in rows]


def read_text_column(path: Path, name: str) -> pa.DictionaryArray:
    """Read one column of texts: its distinct values, and for each row which of them it has.

    Raises:
        DataFormatError: The file is broken, or has no such column of texts.
    """
    file = _open(path)
    texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
    if name not in texts:
        raise DataFormatError(
            f"{path}: no field {name!r} with one text a row. There are: {', '.join(texts)}."
        )
    column = file.read(columns=[name]).column(name)
    return column.combine_chunks().dictionary_encode()


def columns_without_values(path: Path, names: Sequence[str]) -> list[str]:
    """Return those of the columns that are null in every row.

    Raises:
        DataFormatError: The file is not one that `ProvenanceWriter` wrote.
    """
    metadata = _open(path).metadata
    index_of = {metadata.schema.column(index).path: index for index in range(metadata.num_columns)}
    return [
        name
        for name in names
        if all(
            metadata.row_group(group).column(index_of[name]).statistics.null_count
            == metadata.row_group(group).num_rows
            for group in range(metadata.num_row_groups)
        )
    ]


def count_roles(path: Path) -> dict[str | None, int]:
    """Return how many rows have each role; None is no role.

    Raises:
        DataFormatError: The file is not one that `ProvenanceWriter` wrote.
    """
    counts: Counter[str | None] = Counter()
    file = _open(path)
    for group in range(file.num_row_groups):
        found = file.read_row_group(group, columns=["role"])["role"].value_counts().to_pylist()
        counts.update({entry["values"]: entry["counts"] for entry in found})
    return dict(counts)


class ClauseCount(NamedTuple):
    """How much of a dataset names a clause; a row of several clauses counts for each."""

    rows: int
    tokens: int


def count_clauses(path: Path) -> dict[str, ClauseCount]:
    """Return rows and tokens of each clause.

    Raises:
        DataFormatError: The file is not one that `ProvenanceWriter` wrote.
    """
    rows, tokens = Counter[str](), Counter[str]()
    file = _open(path)
    for group in range(file.num_row_groups):
        read = file.read_row_group(group, columns=["clause_ids", "tokens"])
        pairs = zip(read["clause_ids"].to_pylist(), read["tokens"].to_pylist(), strict=True)
        for clauses, num_tokens in pairs:
            for clause in set(clauses or ()):
                rows[clause] += 1
                tokens[clause] += num_tokens
    return {clause: ClauseCount(number, tokens[clause]) for clause, number in rows.items()}


def _schema(carry: Sequence[str]) -> pa.Schema:
    return pa.schema([*_SCHEMA, *(pa.field(name, pa.string()) for name in carry)])


def _row(record: dict[str, Any]) -> ProvenanceRow:
    fixed = {name: record.pop(name) for name in COLUMNS}
    return ProvenanceRow(**fixed, extra=record)


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataFormatError(f"{path}: not readable as parquet ({error}).") from None
    fields = list(file.schema_arrow)
    extra = fields[len(_SCHEMA) :]
    if fields[: len(_SCHEMA)] != list(_SCHEMA) or any(f.type != pa.string() for f in extra):
        raise DataFormatError(
            f"{path}: its columns are {', '.join(file.schema_arrow.names)}; needed are "
            f"{', '.join(_SCHEMA.names)}. Prepare the dataset again."
        )
    return file
