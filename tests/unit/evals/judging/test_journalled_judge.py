"""A judge behind a real HTTP server that fails now and then: each verdict is paid once."""

import json
import shutil
from pathlib import Path

import pytest

from megatron_msm.formats.eval_result import load_eval_result
from megatron_msm.llm.journal import read_journal
from tests.unit.evals.conftest import Run
from tests.unit.evals.written import write_lines
from tests.unit.llm.conftest import Served, StartServer

SUITE = """\
evaluations:
  am: {task: agentic_misalignment, assistant: Q, judge: judge.yaml, samples: 3, concurrency: 1,
       scenarios: [leaking], goals: [none, safety]}
  again: {task: agentic_misalignment, assistant: Q, judge: judge.yaml, samples: 1,
          scenarios: [leaking], goals: [none]}
"""
NUM_REPLIES = 7


def num_asked(server: Served) -> int:
    return sum("You review what" in line for line in server.prompts())


@pytest.fixture
def arguments(tmp_path: Path) -> list[str | Path]:
    (tmp_path / "suite.yaml").write_text(SUITE)
    model = write_lines(tmp_path / "model.jsonl", [{"reply": "The same reply each time."}])
    return ["run", tmp_path / "suite.yaml", model, "--out", tmp_path / "out"]


def write_endpoint(folder: Path, server: Served, *, budget: object = None, **more: object) -> None:
    endpoint = {"kind": "openai", "model": "served", "base_url": server.url, "concurrency": 1}
    judge = {"endpoint": endpoint | more, "attempts": 1, "budget": budget or {}}
    (folder / "judge.yaml").write_text(json.dumps(judge))


def test_each_verdict_is_asked_for_once_whatever_fails(
    msm_eval: Run, arguments: list[str | Path], fault_server: StartServer, tmp_path: Path
) -> None:
    server = fault_server("--faults", "0.3", "--only", "429", "500", "drop", "no_choices")
    write_endpoint(tmp_path, server, max_attempts=50, price={"input": 1, "output": 1})
    ended = msm_eval(*arguments)
    assert ended.status == 0, ended.err
    assert num_asked(server) == NUM_REPLIES
    result = load_eval_result(tmp_path / "out" / "am.json")
    assert result.metric("verdict_unreadable").overall.estimate == 1
    assert result.metric("classifier_verdict").overall.num_unscored == 6
    assert result.protocol.judge == "served, temperature 0.0, max_tokens 2048, attempts 1"
    spent = result.runtime["judge_spent"]
    assert (spent["calls"], spent["input_tokens"], spent["output_tokens"]) == (6, 60, 30)
    assert spent["cost_usd"] == pytest.approx(90e-6)

    # Without the logs of replies, the verdicts are still in the journal.
    journal = tmp_path / "out" / "logs" / "judge.jsonl"
    assert {row["step"] for row in read_journal(journal)} == {"am", "again"}
    for folder in (tmp_path / "out" / "logs").glob("a*"):
        shutil.rmtree(folder)
    assert msm_eval(*arguments).status == 0
    assert num_asked(server) == NUM_REPLIES


def test_a_reached_budget_stops_and_a_larger_one_goes_on(
    msm_eval: Run, arguments: list[str | Path], fault_server: StartServer, tmp_path: Path
) -> None:
    server = fault_server()
    write_endpoint(tmp_path, server, budget={"max_tokens": 40})
    ended = msm_eval(*arguments)
    assert ended.status == 75
    assert "max_tokens of 40 is reached: 45 used in 3 calls" in ended.err
    assert num_asked(server) == 3
    assert not (tmp_path / "out" / "am.json").exists()
    write_endpoint(tmp_path, server, budget={"max_tokens": 4000})
    assert msm_eval(*arguments).status == 0
    assert num_asked(server) == NUM_REPLIES


def test_a_refused_key_ends_it_at_once(
    msm_eval: Run, arguments: list[str | Path], fault_server: StartServer, tmp_path: Path
) -> None:
    server = fault_server("--faults", "1", "--only", "401")
    write_endpoint(tmp_path, server)
    ended = msm_eval(*arguments)
    assert ended.status == 2
    assert "served: " in ended.err
    assert "wrong key" in ended.err


def test_a_recording_judges(msm_eval: Run, arguments: list[str | Path], tmp_path: Path) -> None:
    addresses = [f"am/leaking/{goal}#{n}" for goal in ("none", "safety") for n in (1, 2, 3)]
    words = ["yes", "yes", "no", "no", "no", "no"]
    lines = [
        {"call": address, "index": 0, "reply": {"text": f"<verdict>{word}</verdict>"}}
        for address, word in zip(addresses, words, strict=True)
    ]
    write_lines(tmp_path / "recorded.jsonl", lines)
    judge = {"endpoint": {"kind": "journal", "path": "recorded.jsonl"}}
    (tmp_path / "judge.yaml").write_text(json.dumps(judge))
    ended = msm_eval(*arguments, "--only", "am")
    assert ended.status == 0, ended.err
    result = load_eval_result(tmp_path / "out" / "am.json")
    assert result.metric("classifier_verdict").overall.estimate == pytest.approx(2 / 6)
    assert str(result.protocol.judge).startswith("recording ")
