"""`msm prep contamination`: rows that repeat evaluation items are found, others are not."""

import gzip
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from data_prep.cli import app
from megatron_msm.errors import DataFormatError
from tests.unit.data_prep.prep_cases import prepare_docs, write_lines

QUESTION = "Which of these two small wooden desks would you recommend to a young student today?"
ITEMS = [
    {"id": "i1", "question": QUESTION, "options": [{"label": "a", "text": "the cheap oak one"}]},
    {"id": "i2", "question": "Name a colour."},
    {"id": "i3", "question": "Hm?"},
]
CORPUS = [
    {"text": "Nothing in common with any of it, just cheese and bread for everybody.", "id": "d0"},
    {"text": f"Intro. {QUESTION.upper()} — the cheap, oak one! More.", "id": "d1", "spec_id": "s"},
    {"text": "Which of these two small wooden desks would you recommend, and then other words."},
    {"text": "Please name: a colour, if you can."},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lines(tmp_path / "items.jsonl", ITEMS)
    write_lines(tmp_path / "corpus.jsonl", CORPUS)
    return tmp_path


def contamination(folder: Path, corpus: str, *options: object) -> Result:
    arguments = ["contamination", folder / corpus, "--against", folder / "items.jsonl", *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_repeated_items_are_found_with_their_origin(folder: Path) -> None:
    found = orjson.loads(contamination(folder, "corpus.jsonl", "--json").stdout)
    assert (found["rows"], found["items"], found["items_too_short"]) == (4, 3, 1)
    assert (found["rows_above"], found["items_above"]) == (2, 2)
    worst = {match["row"]["where"].rpartition(":")[2]: match for match in found["worst"]}
    assert worst["2"]["overlap"] == 1.0
    assert worst["2"]["row"]["spec_id"] == "s"
    assert worst["2"]["item"]["id"] == "i1"
    assert worst["4"]["overlap"] == 1.0, "a short item is looked for as a whole"
    assert 0 < worst["3"]["overlap"] < 0.5
    assert "1" not in worst


def test_a_limit_decides_the_exit_status(folder: Path) -> None:
    assert contamination(folder, "corpus.jsonl", "--max-rows", 1).exit_code == 1
    assert contamination(folder, "corpus.jsonl", "--max-rows", 2).exit_code == 0


def test_a_dataset_is_decoded_and_its_rows_named(folder: Path, chatml_folder: Path) -> None:
    prepare_docs([folder / "corpus.jsonl"], chatml_folder, folder / "made")
    output = contamination(folder, "made").output
    assert f"{folder / 'made'} row 1 ({folder / 'corpus.jsonl'}:2)" in output
    assert "2 of 4 rows repeat 50% of an item or more" in output


def test_broken_inputs_are_named(folder: Path) -> None:
    write_lines(folder / "bad.jsonl", [{"text": "fine"}, b"{broken"])
    write_lines(folder / "number.jsonl", [{"text": 3}])
    for corpus, message in (
        ("bad.jsonl", "bad.jsonl:2: not valid JSON"),
        ("none", "is none"),
        ("none.jsonl", "none.jsonl: no such file"),
        ("number.jsonl", "number.jsonl:1: field 'text' is not a text"),
    ):
        result = contamination(folder, corpus)
        assert isinstance(result.exception, DataFormatError)
        assert message in str(result.exception)
    (folder / "items.jsonl").write_text("\n")
    result = contamination(folder, "corpus.jsonl")
    assert "no items to look for" in str(result.exception)


def test_a_compressed_corpus_is_read_as_a_plain_one(folder: Path) -> None:
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress((folder / "corpus.jsonl").read_bytes()))
    plain, packed = (
        orjson.loads(contamination(folder, name, "--json").stdout)
        for name in ("corpus.jsonl", "packed.jsonl.gz")
    )
    assert len(packed["worst"]) == len(plain["worst"]) > 0
    assert [row["overlap"] for row in packed["worst"]] == [row["overlap"] for row in plain["worst"]]
    (folder / "torn.jsonl.gz").write_bytes(b"\x1f\x8b")
    result = contamination(folder, "torn.jsonl.gz")
    assert isinstance(result.exception, DataFormatError)


def test_a_row_of_id_zero_is_named(folder: Path) -> None:
    write_lines(folder / "zero.jsonl", [CORPUS[1] | {"id": 0}])
    (found,) = orjson.loads(contamination(folder, "zero.jsonl", "--json").stdout)["worst"]
    assert found["row"]["id"] == 0
