"""The real small model, as the judged one and as its own judge: plumbing, not a measurement."""

import json
import sys
from pathlib import Path

import pytest

from megatron_msm.formats.eval_result import load_eval_result
from tests.unit.evals.conftest import Run

SUITE = """\
evaluations:
  am:
    {task: agentic_misalignment, assistant: SmolLM, judge: judge.yaml, samples: 1, max_tokens: 16,
     scenarios: [exfiltration], goals: [safety]}
  why: {task: reasons, of: am, judge: judge.yaml}
"""


@pytest.mark.slow
def test_smollm2_replies_and_judges(msm_eval: Run, smollm2_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    judge = f"path: {smollm2_folder}\nmax_tokens: 16\nattempts: 1\n"
    (tmp_path / "judge.yaml").write_text(judge)
    ended = msm_eval("run", tmp_path / "suite.yaml", smollm2_folder, "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    (row,) = load_eval_result(tmp_path / "out" / "am.json").rows
    assert str(row.details["reply"]).strip()
    assert str(row.details["judge"]).strip()
    assert row.numbers["verdict_unreadable"] is not None
    result = load_eval_result(tmp_path / "out" / "why.json")
    assert (
        result.model.weights_sha256
        == load_eval_result(tmp_path / "out" / "am.json").model.weights_sha256
    )


QUESTIONS = "{task: open_qa, questions: qa.jsonl, spec: spec.md, judge: judge.yaml, samples: 1"
SERVED = f"""\
evaluations:
  here: {QUESTIONS}, temperature: 0, max_tokens: 24, dtype: fp32}}
  there: {QUESTIONS}, temperature: 0, max_tokens: 24, server: server.yaml}}
  am: {{task: agentic_misalignment, assistant: SmolLM, judge: judge.yaml, samples: 1,
       max_tokens: 16, scenarios: [leaking], goals: [none], server: server.yaml}}
  why: {{task: reasons, of: am, judge: judge.yaml}}
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_server_that_is_started_writes_what_this_process_writes(
    msm_eval: Run, smollm2_folder: Path, tmp_path: Path
) -> None:
    """Greedy replies through `transformers serve`: template, tokens and weights are the same."""
    program = str(Path(sys.executable).with_name("transformers"))
    options = ["--port", "{port}", "--device", "cpu", "--dtype", "float32"]
    server = {"command": [program, "serve", "{model}", *options], "start_timeout_s": 600}
    (tmp_path / "server.yaml").write_text(json.dumps(server))
    (tmp_path / "suite.yaml").write_text(SERVED)
    (tmp_path / "spec.md").write_text("It is helpful.")
    texts = ["What is the capital of France?", "Name three colours."]
    lines = [{"id": f"{n}", "category": "x", "question": text} for n, text in enumerate(texts)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge = f"path: {smollm2_folder}\nmax_tokens: 16\nattempts: 1\n"
    (tmp_path / "judge.yaml").write_text(judge)
    ended = msm_eval("run", tmp_path / "suite.yaml", smollm2_folder, "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    results = {path.stem: load_eval_result(path) for path in (tmp_path / "out").glob("*.json")}
    here, there = (
        [row.details["reply"] for row in results[name].rows] for name in ("here", "there")
    )
    assert here == there
    assert "Paris" in here[0]
    tokens = [
        [row.numbers["reply_tokens"] for row in results[name].rows] for name in ("here", "there")
    ]
    assert tokens[0] == tokens[1]
    assert len({result.model.weights_sha256 for result in results.values()}) == 1
    assert results["here"].protocol_sha256 != results["there"].protocol_sha256
    assert results["am"].rows[0].details["reply"].strip()
    assert results["why"].n == 1
