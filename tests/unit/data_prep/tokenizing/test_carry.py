"""`--carry`: further fields of the input line as columns, and from a token back to its clause."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_prep.cli import app
from data_prep.writing.merge import merge_datasets
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.provenance import (
    COLUMNS,
    count_roles,
    read_provenance,
    read_provenance_rows,
)
from tests.unit.data_prep.prep_cases import (
    conversations,
    dataset_bytes,
    prepare_docs,
    prepare_talks,
    write_lines,
)

LINES: list[dict[str, Any]] = [
    {"text": "a cheese", "judge": "yes", "score": 0.5, "spec_id": "s", "clause_ids": ["c1", "c4"]},
    {"text": "b cheese", "score": None, "tags": ["x", {"y": 1}], "role": "dev"},
    {"text": "c cheese", "role": "train"},
]
CARRY = ("judge", "score", "tags")


def shown(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["show", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_carried_fields_are_text_columns(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", LINES)
    prepare_docs([source], chatml_folder, tmp_path / "a", carry=CARRY)
    path = tmp_path / "a.meta.parquet"
    assert tuple(pq.read_schema(path).names) == (*COLUMNS, *CARRY)
    rows = list(read_provenance(path))
    assert dict(rows[0].extra) == {"judge": "yes", "score": "0.5", "tags": None}
    assert dict(rows[1].extra) == {"judge": None, "score": None, "tags": '["x",{"y":1}]'}
    assert read_provenance_rows(path, [2, 0, 2]) == [rows[2], rows[0], rows[2]]
    assert count_roles(path) == {None: 1, "dev": 1, "train": 1}
    assert "  judge      yes" in shown(tmp_path / "a", "--row", 0)


def test_chats_carry_too_and_merging_keeps_it(tmp_path: Path, chatml_folder: Path) -> None:
    lines = [{**line, "n": n} for n, line in enumerate(conversations(4))]
    sources = [write_lines(tmp_path / f"{n}.jsonl", lines[n : n + 2]) for n in (0, 2)]
    for source in sources:
        prepare_talks([source], chatml_folder, source.with_suffix(""), carry=("n",))
    merge_datasets([source.with_suffix("") for source in sources], tmp_path / "merged")
    prepare_talks(sources, chatml_folder, tmp_path / "once", carry=("n",))
    assert dataset_bytes(tmp_path / "merged") == dataset_bytes(tmp_path / "once")
    found = [row.extra["n"] for row in read_provenance(tmp_path / "merged.meta.parquet")]
    assert found == ["0", "1", "2", "3"]


@pytest.mark.parametrize("carry", [("spec_id",), ("x", "x"), ("",), ("extra",)])
def test_names_that_cannot_be_carried(
    tmp_path: Path, chatml_folder: Path, carry: tuple[str, ...]
) -> None:
    source = write_lines(tmp_path / "d.jsonl", LINES)
    with pytest.raises(ConfigError, match="--carry"):
        prepare_docs([source], chatml_folder, tmp_path / "a", carry=carry)


def test_from_a_token_to_the_clause(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", LINES)
    prepare_docs([source], chatml_folder, tmp_path / "a")
    first = int(next(read_provenance(tmp_path / "a.meta.parquet")).tokens)
    assert "spec s, clauses: c1, c4" in shown(tmp_path / "a", "--row", 0, "--token", 1)
    assert "token 0 (id" in shown(tmp_path / "a", "--at", first)
    assert "row 1 of 3" in shown(tmp_path / "a", "--at", first)
    assert "clauses: no clause named" in shown(tmp_path / "a", "--at", first)
    for wrong in (["--at", "999"], ["--token", "999"]):
        result = CliRunner().invoke(app, ["show", str(tmp_path / "a"), *wrong])
        assert isinstance(result.exception, DataFormatError)
        assert "999" in str(result.exception)
