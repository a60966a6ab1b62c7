"""`msm prep dedup`: planted near duplicates go, the first of each group stays."""

import builtins
import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from data_prep.cleaning.dedup import find_duplicates
from data_prep.cli import app
from megatron_msm.errors import ConfigError, MissingExtraError
from tests.unit.data_prep.prep_cases import prepare_docs, write_lines

pytest.importorskip("rensa", reason="needs the extra `dedup`")


def corpus() -> list[dict[str, Any]]:
    """Return 60 different texts, then light edits of the first 20, then two exact copies."""
    generator = random.Random(0)
    vocabulary = [f"word{n}" for n in range(400)]
    texts = [generator.choices(vocabulary, k=120) for _ in range(60)]
    edited = [[*text[:60], "changed", *text[61:]] for text in texts[:20]]
    plain = [" ".join(text) for text in (*texts, *edited)]
    return [{"text": text, "id": n} for n, text in enumerate([*plain, plain[5], plain[5].upper()])]


def dedup(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["dedup", *map(str, arguments)])


def test_near_duplicates_are_dropped_and_the_rest_is_untouched(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", [*corpus()[:60], b"", *corpus()[60:]])
    result = dedup(
        source, "--out", tmp_path / "kept.jsonl", "--drops", tmp_path / "drops.jsonl", "--json"
    )
    assert orjson.loads(result.stdout) == {"rows": 82, "dropped": 22, "kept": 60, "clusters": 20}
    assert (tmp_path / "kept.jsonl").read_bytes() == b"".join(
        source.read_bytes().splitlines(keepends=True)[:61]
    )
    drops = [orjson.loads(line) for line in (tmp_path / "drops.jsonl").read_bytes().splitlines()]
    assert [drop["kept_number"] for drop in drops] == [*range(20), 5, 5]
    assert drops[-1]["jaccard"] == 1.0, "case and punctuation tell no copies apart"
    assert all(0.7 <= drop["jaccard"] < 1 for drop in drops[:20])
    assert f"{source}:6" in dedup(source).output


def test_the_jaccard_is_exact(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(20)]
    other = [*words[:10], "x", *words[11:]]
    texts = [{"text": " ".join(text)} for text in (words, other)]
    source = write_lines(tmp_path / "c.jsonl", texts)
    found = find_duplicates(source, threshold=0.5, size=5)
    # 16 runs each, 5 of which hold the changed word.
    assert [duplicate.jaccard for duplicate in found.dropped] == [11 / 21]
    assert not find_duplicates(source, threshold=0.6, size=5).dropped


def test_a_dataset_gives_rows_to_drop(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", corpus())
    prepare_docs([source], chatml_folder, tmp_path / "made")
    output = dedup(tmp_path / "made").output
    assert "22 of 82 rows (26.8%) are near duplicates of 20 others" in output
    assert f"{tmp_path / 'made'} row 5 ({source}:6) keeps for" in output


def test_what_cannot_be_written_is_refused_first(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", corpus())
    prepare_docs([source], chatml_folder, tmp_path / "made")
    for arguments in ((tmp_path / "made", "--out", tmp_path / "x"), (source, "--out", source)):
        assert isinstance(dedup(*arguments).exception, ConfigError)
    assert len(source.read_bytes().splitlines()) == 82


def test_without_the_package_the_install_line_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_rensa(name: str, *arguments: Any) -> Any:
        if name == "rensa":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_rensa)
    source = write_lines(tmp_path / "c.jsonl", corpus()[:2])
    with pytest.raises(MissingExtraError, match=r"megatron-msm\[dedup\]"):
        find_duplicates(source, threshold=0.7, size=5)
