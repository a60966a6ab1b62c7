"""`msm eval run`: a suite of evaluations on one model, and the report over them."""

import json
from pathlib import Path

import pytest

from megatron_msm.formats.eval_result import load_eval_result
from tests.unit.evals.conftest import Run

SUITE = """\
evaluations:
  near: {task: choice, items: items.jsonl, dtype: fp32}
  turned: {task: choice, items: items.jsonl, dtype: fp32, target: affordability}
"""


@pytest.fixture
def suite(tmp_path: Path, items_file: Path) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    return path


def test_each_evaluation_writes_its_result_and_the_report_reads_them(
    msm_eval: Run, tiny_model: Path, suite: Path, tmp_path: Path, items_file: Path
) -> None:
    out = tmp_path / "results"
    ended = msm_eval("run", suite, tiny_model, "--out", out, "--device", "cpu", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert [shown["name"] for shown in json.loads(ended.out)] == ["near", "turned"]
    near, turned = (load_eval_result(out / f"{name}.json") for name in ("near", "turned"))
    assert [row.numbers["log_odds"] for row in near.rows] == [
        -(row.numbers["log_odds"] or 0.0) for row in turned.rows
    ]
    short = tmp_path / "short.json"
    options = ("--items", items_file, "--dtype", "fp32", "--device", "cpu")
    assert msm_eval("choice", tiny_model, *options, "--out", short).status == 0
    assert load_eval_result(short).rows == near.rows
    assert load_eval_result(short).protocol_sha256 == near.protocol_sha256

    arm = f"smollm2+aft(x)[lr=3e-4]#1={out / 'near.json'}"
    report = tmp_path / "report.html"
    ended = msm_eval("report", report, "--result", arm, "--result", out / "turned.json")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith("near: smollm2+aft(x)[lr=3e-4]#1: ")
    assert lines[1].startswith("turned: model: ")


def test_only_one_of_them(msm_eval: Run, tiny_model: Path, suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    ended = msm_eval("run", suite, tiny_model, "--out", out, "--only", "turned")
    assert ended.status == 0
    assert [path.name for path in out.iterdir()] == ["turned.json"]


@pytest.mark.parametrize(
    ("text", "options", "parts"),
    [
        ("evaluations: {}", [], ["evaluations"]),
        ("evaluation: {}", [], ["Did you mean 'evaluations'?"]),
        ("evaluations: {a: {items: items.jsonl}}", [], ["evaluations.a.task", "missing"]),
        (
            "evaluations: {a: {task: choise, items: items.jsonl}}",
            [],
            ["evaluations.a.task", "'choise'", "Did you mean 'choice'?"],
        ),
        (
            "evaluations: {a: {task: choice, itmes: items.jsonl}}",
            [],
            ["suite.yaml: evaluations.a: itmes: unknown key", "'items'"],
        ),
        (
            "evaluations: {a: {task: choice, items: gone.jsonl}}",
            [],
            ["gone.jsonl", "No such file"],
        ),
        ("evaluations: {a/b: {task: choice, items: items.jsonl}}", [], ["a/b"]),
        (SUITE, ["--only", "nera"], ["--only nera", "Did you mean 'near'?"]),
        (SUITE, ["--device", "gpu"], ["--device gpu"]),
    ],
)
def test_what_is_wrong_is_found_before_anything_runs(
    msm_eval: Run,
    tiny_model: Path,
    suite: Path,
    tmp_path: Path,
    text: str,
    options: list[str],
    parts: list[str],
) -> None:
    suite.write_text(text)
    out = tmp_path / "results"
    ended = msm_eval("run", suite, tiny_model, "--out", out, *options)
    assert ended.status == 2
    assert ended.err.startswith("error: ")
    for part in parts:
        assert part in ended.err
    assert not list(tmp_path.rglob("*.json"))
