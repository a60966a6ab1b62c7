"""`msm prep stats`: lengths, totals by provenance, fill."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from data_prep.cli import app
from megatron_msm.errors import ConfigError
from megatron_msm.formats.indexed_dataset import IndexedDataset
from tests.unit.data_prep.prep_cases import conversations, prepare_docs, prepare_talks, write_lines

LINES: list[dict[str, Any]] = [
    {"text": "a cheese " * n, "domain": ("food", "law")[n % 2], "clause_ids": ["c1"] * (n < 5)}
    for n in range(1, 21)
]


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory, chatml_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("stats")
    prepare_docs([write_lines(folder / "d.jsonl", LINES)], chatml_folder, folder / "docs")
    return folder / "docs"


def stats(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["stats", *map(str, arguments)])


def test_totals_and_histogram_add_up(docs: Path) -> None:
    result = stats(docs, "--by", "domain", "--by", "clause_ids", "--seq-length", 64, "--json")
    found = orjson.loads(result.stdout)
    lengths = IndexedDataset(docs).lengths
    assert sum(found["histogram"]["rows"]) == found["kept"] == 20
    assert found["quantiles"]["p0"] == lengths.min()
    assert found["quantiles"]["p100"] == lengths.max()
    domains = found["totals"]["domain"]
    assert {name: total["rows"] for name, total in domains.items()} == {"food": 10, "law": 10}
    assert sum(total["tokens"] for total in domains.values()) == found["tokens"]
    assert found["totals"]["clause_ids"]["c1"]["rows"] == 4
    assert 0.5 < found["fill"]["64"] <= 1


def test_words_and_bars(docs: Path) -> None:
    text = stats(docs, "--by", "domain", "--seq-length", 64).output
    assert "20 rows" in text
    assert "█" in text
    assert "packed at 64 positions" in text
    assert "by domain:" in text


def test_chats_say_what_carries_loss(tmp_path: Path, chatml_folder: Path) -> None:
    prepare_talks(
        [write_lines(tmp_path / "c.jsonl", conversations(5))], chatml_folder, tmp_path / "c"
    )
    assert "tokens carry loss" in stats(tmp_path / "c").output


def test_a_picture(docs: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `evals`")
    assert stats(docs, "--png", tmp_path / "new" / "h.png").exit_code == 0
    assert (tmp_path / "new" / "h.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_field_is_named_with_those_there_are(docs: Path) -> None:
    result = stats(docs, "--by", "topic")
    assert isinstance(result.exception, ConfigError)
    assert "--by topic" in str(result.exception)
    assert "domain" in str(result.exception)
