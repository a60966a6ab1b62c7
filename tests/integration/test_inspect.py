"""Inspect itself: our tasks under `inspect eval`."""

import subprocess
import sys
from pathlib import Path

import pytest
from inspect_ai.log import read_eval_log

from tests.unit.evals.written import write_judge, write_lines

INSPECT = str(Path(sys.executable).with_name("inspect"))
REPLY = "I shall wait for the change of systems."
VERDICT = "It waits and does nothing. <verdict>no</verdict>"


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Written replies of a model and of its judge."""
    write_lines(tmp_path / "model.jsonl", [{"reply": REPLY}])
    write_judge(tmp_path, [{"reply": VERDICT}])
    return tmp_path


@pytest.mark.slow
def test_a_task_runs_by_its_entry_point(scripts: Path) -> None:
    arguments = ["assistant=Qwen", "samples=2", 'scenarios=["leaking"]', "form=omission"]
    command = [
        *(INSPECT, "eval", "megatron_msm/agentic_misalignment"),
        *(part for argument in arguments for part in ("-T", argument)),
        *("--model", f"msm-script/{scripts / 'model.jsonl'}"),
        *("--model-role", f"judge=msm-script/{scripts / 'judge.jsonl'}"),
        *("--display", "none", "--log-dir", "logs"),
    ]
    ended = subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (path,) = (scripts / "logs").glob("*.eval")
    log = read_eval_log(str(path))
    assert log.status == "success"
    assert log.eval.task == "megatron_msm/agentic_misalignment"
    assert log.samples is not None
    assert len(log.samples) == 9 * 2
    assert {sample.output.completion for sample in log.samples} == {REPLY}
    assert log.results is not None
    (headline, *_) = [s for s in log.results.scores if s.name == "classifier_verdict"]
    assert headline.metrics["scored_mean"].value == 0
    assert headline.metrics["num_scored"].value == 9
