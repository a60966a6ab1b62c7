"""The paired example's recorded run: every step of `msm generate docs`, replayed."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.generate.run import Made, make_documents, opened, resolved_paths
from data_prep.generate.settings import GenerateConfig
from megatron_msm.config.load import load_config

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "plain_or_lasting"
REFUSED = {
    ("plain", "clock-05"): "judge",
    ("lasting", "clock-05"): "pair",
    ("plain", "cleaning-14"): "pair",
    ("lasting", "cleaning-14"): "judge",
    ("plain", "heat-07"): "pair",
    ("lasting", "heat-07"): "judge",
}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def replayed(out: Path) -> Made:
    config = load_config(FOLDER / "generate.yaml", GenerateConfig, [f"out={out}"])
    with opened(resolved_paths(config, FOLDER)) as run:
        return make_documents(run)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    """Replay the run once."""
    out = tmp_path_factory.mktemp("recorded")
    return out, replayed(out)


def test_texts_are_those_of_the_committed_documents(run: tuple[Path, Made]) -> None:
    out, _ = run
    for arm in ("plain", "lasting"):
        committed = {row["text"]: row for row in rows(FOLDER / f"{arm}.docs.jsonl")}
        kept = rows(out / "documents" / f"{arm}.jsonl")
        assert len(kept) == 117
        for row in kept:
            source = committed.pop(row["text"])
            assert (row["idea"], row["doc_type"]) == (source["idea"], source["doc_type"])
            assert set(source["clause_ids"]) < set(row["clause_ids"])
        assert {source["id"] for source in committed.values()} == {
            name for refused_arm, name in REFUSED if refused_arm == arm
        }


def test_what_is_refused_is_refused_with_its_twin(run: tuple[Path, Made]) -> None:
    out, _ = run
    found = {}
    for arm in ("plain", "lasting"):
        names = {row["text"]: row["id"] for row in rows(FOLDER / f"{arm}.docs.jsonl")}
        for row in rows(out / "rejects" / f"documents-{arm}.jsonl"):
            found[arm, names[row["text"]]] = row["gate"]
    assert found == REFUSED


def test_pairs_stand_side_by_side(run: tuple[Path, Made]) -> None:
    out, _ = run
    plain, lasting = (rows(out / "documents" / f"{arm}.jsonl") for arm in ("plain", "lasting"))
    assert [row["id"] for row in plain] == [row["id"] for row in lasting]


def test_counts_are_those_of_the_readme(run: tuple[Path, Made]) -> None:
    summary = run[1].summary
    assert summary["counts"]["shortfalls"] == []
    assert summary["counts"]["judged_twice"] == {
        "judge plain": {"rows": 6, "same_verdict": 6},
        "judge lasting": {"rows": 8, "same_verdict": 8},
    }
    for arm in ("plain", "lasting"):
        assert summary["documents"][arm]["rows"] == 117
        assert summary["documents"][arm]["attribution_density"] > 0.65
    assert summary["total_spent"]["calls"] == sum(1 for _ in (FOLDER / "recorded.jsonl").open())


def test_a_second_run_writes_the_same_bytes(run: tuple[Path, Made], tmp_path: Path) -> None:
    out, _ = run
    replayed(tmp_path)
    for name in ("documents/plain.jsonl", "documents/lasting.jsonl", "plan.json"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()
