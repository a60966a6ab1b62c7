from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_msm.errors import DataFormatError
from megatron_msm.formats import provenance
from megatron_msm.formats.provenance import (
    ProvenanceRow,
    ProvenanceWriter,
    provenance_table,
    read_provenance,
    read_provenance_row,
)
from megatron_msm.formats.rejects import Reject, RejectWriter, read_rejects, snippet_of


def row(number: int) -> ProvenanceRow:
    return ProvenanceRow(
        source_file="a.jsonl",
        source_line=number + 1,
        id=str(number),
        spec_id="cheese",
        clause_ids=["c1", "c2"] if number % 2 else None,
        domain=None,
        subdomain=None,
        doc_type="essay",
        idea=None,
        role="train",
        characters=10 * number,
        tokens=number,
        sha256="ab",
    )


def write(path: Path, rows: list[ProvenanceRow]) -> None:
    writer = ProvenanceWriter(path)
    for one in rows:
        writer.add(provenance_table([one]))
    writer.finalize()


def test_provenance_round_trip_over_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_ROWS_PER_GROUP", 4)
    path, rows = tmp_path / "x.meta.parquet", [row(number) for number in range(11)]
    write(path, rows)
    assert pq.ParquetFile(path).num_row_groups == 3
    assert list(read_provenance(path)) == rows
    assert [read_provenance_row(path, index) for index in (0, 3, 4, 10)] == [
        rows[index] for index in (0, 3, 4, 10)
    ]
    with pytest.raises(DataFormatError, match="row 11 is not among its 11 rows"):
        read_provenance_row(path, 11)


def test_provenance_bytes_depend_on_the_rows_alone(tmp_path: Path) -> None:
    rows = [row(number) for number in range(20)]
    write(tmp_path / "a", rows)
    write(tmp_path / "b", list(read_provenance(tmp_path / "a")))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x")
    with pytest.raises(DataFormatError, match="its columns are text; needed are source_file"):
        list(read_provenance(tmp_path / "x"))
    (tmp_path / "y").write_bytes(b"not parquet")
    with pytest.raises(DataFormatError, match="not readable as parquet"):
        read_provenance_row(tmp_path / "y", 0)


def test_rejects_round_trip(tmp_path: Path) -> None:
    rejects = [Reject("a.jsonl", 3, 120, "no field 'text'", "{}"), Reject("b\n", 1, 0, 'say "x"')]
    writer = RejectWriter(tmp_path / "r")
    for reject in rejects:
        writer.add(reject)
    writer.finalize()
    assert list(read_rejects(tmp_path / "r")) == rejects
    (tmp_path / "r").write_text('{"file": "a"}\n')
    with pytest.raises(DataFormatError, match=r"r:1: not a reject record"):
        list(read_rejects(tmp_path / "r"))


@given(st.binary(max_size=600))
def test_a_snippet_is_short_text_of_any_bytes(raw: bytes) -> None:
    snippet = snippet_of(raw)
    assert len(snippet) <= 120
    snippet.encode()
