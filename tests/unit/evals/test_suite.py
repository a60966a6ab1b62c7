"""`msm eval run`: a suite of evaluations on one model, and the report over them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

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
            ["evaluations.a.itmes: unknown key", "'items'"],
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


KILL = """
import sys
from pathlib import Path
from evals.suite import prepare_suite, run_suite
from evals.models.local import LocalModel
from evals.progress import progress_on
from rich.console import Console
model = LocalModel(Path(sys.argv[2]), device="cpu")
for ran in run_suite(prepare_suite(Path(sys.argv[1]), model), Path(sys.argv[3]), model,
                     lambda name: progress_on(Console(stderr=True), name)):
    print(ran.result.name, flush=True)
    sys.stdin.read()  # until it is killed
"""


def test_a_killed_run_goes_on_with_what_is_left(
    msm_eval: Run, tiny_model: Path, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    command = [sys.executable, "-c", KILL, str(suite), str(tiny_model), str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "near\n"
        run.kill()
    before = (out / "near.json").read_bytes()
    ended = msm_eval("run", suite, tiny_model, "--out", out, "--device", "cpu")
    assert ended.status == 0
    assert f"kept       {out / 'near.json'}" in ended.out
    assert f"written    {out / 'turned.json'}" in ended.out
    assert (out / "near.json").read_bytes() == before


def edit_items(model: Path, suite: Path) -> None:
    items = suite.parent / "items.jsonl"
    items.write_text(items.read_text().replace("Which chair", "What chair"))


def edit_settings(model: Path, suite: Path) -> None:
    suite.write_text(suite.read_text().replace("fp32", "bf16"))


def edit_weights(model: Path, suite: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] *= 2
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def edit_template(model: Path, suite: Path) -> None:
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + "{# #}")


def edit_result(model: Path, suite: Path) -> None:
    (suite.parent / "results" / "near.json").write_text("{")


def edit_nothing(model: Path, suite: Path) -> None:
    (suite.parent / "other.txt").write_text("x")


@pytest.mark.parametrize(
    ("edit", "num_kept"),
    [
        (edit_nothing, 2),
        (edit_items, 0),
        (edit_settings, 0),
        (edit_weights, 0),
        (edit_template, 0),
        (edit_result, 1),
    ],
)
def test_a_result_is_kept_only_while_nothing_has_changed(
    msm_eval: Run,
    tiny_model: Path,
    suite: Path,
    tmp_path: Path,
    edit: Callable[[Path, Path], None],
    num_kept: int,
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    arguments = ("run", suite, model, "--out", tmp_path / "results", "--device", "cpu")
    assert msm_eval(*arguments).out.count("written    ") == 2
    edit(model, suite)
    ended = msm_eval(*arguments)
    assert ended.status == 0
    assert ended.out.count("kept       ") == num_kept
    assert ended.out.count("written    ") == 2 - num_kept
