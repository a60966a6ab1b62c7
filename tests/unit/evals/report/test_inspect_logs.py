"""Contrasts over logs that Inspect wrote, beside errorbars' own reading of the same logs."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from errorbars.adapters.inspect_ai import load_inspect_log as theirs_of
from errorbars.compare import paired_compare
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_ai.model import ChatMessage, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes, match

from tests.unit.evals.conftest import Run

NUM_QUESTIONS = 12


@pytest.fixture(autouse=True)
def logging_kept() -> Iterator[None]:
    """Inspect takes the root logger."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def asked(folder: Path, name: str, right: set[int]) -> Path:
    """A log of questions, asked twice each, of which the model knows some."""
    samples = [
        Sample(
            id=n,
            input=f"Question {n}.",
            target="yes",
            metadata={"page": (n - 1) // 3, "odd": n % 2},
        )
        for n in range(1, NUM_QUESTIONS + 1)
    ]

    def answer(asked: list[ChatMessage], *_: Any) -> ModelOutput:
        number = int(asked[-1].text.strip("Question ."))
        output = ModelOutput.from_content("mockllm/model", "yes" if number in right else "no")
        output.usage = ModelUsage()  # else tokens are counted, with a file from the network
        return output

    model = get_model("mockllm/model", custom_outputs=answer, memoize=False)
    (log,) = eval(
        Task(dataset=samples, scorer=[match(), includes()], name="quiz", epochs=2),
        model=model, log_dir=str(folder / name), display="none", temperature=0.5,
    )  # fmt: skip
    assert log.status == "success", log.error
    return Path(log.location)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two models asked alike, and the first as if it had been asked at another temperature."""
    folder = tmp_path_factory.mktemp("logs")
    before = asked(folder, "a", {12, 4, 5})
    log = read_eval_log(str(before))
    log.eval.model_generate_config.temperature = log.plan.config.temperature = 1.0
    write_eval_log(log, str(folder / "hotter.eval"))
    return before, asked(folder, "b", {12, 1, 2, 4, 5, 7, 8, 9}), folder / "hotter.eval"


def test_the_contrast_is_that_of_errorbars(msm_eval: Run, logs: tuple[Path, Path, Path]) -> None:
    before, after, _ = logs
    scores = [theirs_of(path, scorer="match").scores_by_question() for path in (before, after)]
    by_question = [[of[str(n)] for n in range(1, NUM_QUESTIONS + 1)] for of in scores]
    pages = [str(n // 3) for n in range(NUM_QUESTIONS)]
    theirs = paired_compare(by_question[1], by_question[0], pages)
    plain = json.loads(msm_eval("contrast", before, after, "--json").out)["lines"][0]
    assert (plain["change"]["estimate"], plain["change"]["low"]) == pytest.approx(
        (theirs.mean_diff, theirs.ci_low)
    )
    assert plain["p_value"] == pytest.approx(theirs.p_value)
    found = json.loads(
        msm_eval("contrast", before, after, "--cluster", "page", "--group", "odd", "--json").out
    )
    overall, *groups = found["lines"]
    assert (overall["change"]["low"], overall["change"]["high"]) == pytest.approx(
        (theirs.ci_low_clustered, theirs.ci_high_clustered), abs=1e-6
    )
    assert [(one["group"], one["num_items"]) for one in groups] == [("1", 6), ("0", 6)]
    assert {one["correction"] for one in groups} == {"Benjamini-Hochberg"}
    assert found["metric"]["clustered_by"] == "page"


def test_what_a_user_reads(msm_eval: Run, logs: tuple[Path, Path, Path]) -> None:
    ended = msm_eval("contrast", logs[0], logs[1], "--group", "odd", "--metric", "includes")
    assert ended.status == 0, ended.err
    assert "quiz: includes, share" in ended.out
    assert "includes rose by 0.42 [" in ended.out
    assert "Benjamini-Hochberg" in ended.out
    assert len(ended.out.splitlines()) == 9
    assert ended.out.splitlines()[-1].startswith("next:")


def test_logs_that_were_not_asked_alike_are_contrasted_only_with_a_flag(
    msm_eval: Run, logs: tuple[Path, Path, Path]
) -> None:
    before, _, hotter = logs
    refused = msm_eval("contrast", before, hotter)
    assert refused.status == 2
    assert "temperature (0.5 and 1.0)" in refused.err
    allowed = msm_eval("contrast", before, hotter, "--across-protocols")
    assert allowed.status == 0, allowed.err
    assert "DIFFERENT PROTOCOLS" in allowed.out


def test_logs_stand_in_a_report_like_results(
    msm_eval: Run, logs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "r.html"
    ended = msm_eval("report", out, "--result", f"a={logs[0]}", "--result", f"b={logs[1]}")
    assert ended.status == 0, ended.err
    assert "b, compared with a: match rose by 0.42" in ended.out
    assert "Question 3." in out.read_text()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--metric", "matches"], "has match, includes"),
        (["--cluster", "chapter"], "no field 'chapter' in its metadata; it has odd, page"),
    ],
)
def test_wrong_options_are_refused(
    msm_eval: Run, logs: tuple[Path, Path, Path], options: list[str], part: str
) -> None:
    ended = msm_eval("contrast", logs[0], logs[1], *options)
    assert ended.status == 2
    assert part in ended.err


def test_broken_and_unfinished_logs_are_refused(
    msm_eval: Run, logs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.eval"
    torn.write_bytes(logs[0].read_bytes()[:400])
    ended = msm_eval("contrast", torn, logs[1])
    assert ended.status == 2
    assert "torn.eval: cannot be read as an Inspect log" in ended.err
    log = read_eval_log(str(logs[0]))
    log.status = "cancelled"
    half = tmp_path / "half.json"
    write_eval_log(log, str(half))
    ended = msm_eval("contrast", half, logs[1])
    assert ended.status == 2
    assert "the log's status is 'cancelled'" in ended.err
    log.status = "success"
    write_eval_log(log, str(half))
    assert msm_eval("contrast", half, logs[1]).status == 0
