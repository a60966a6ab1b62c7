"""A server that is started for an evaluation, asked, and gone afterwards whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evals.models import server_guard
from evals.models.chat_turn import render_chat
from megatron_msm.formats.eval_result import load_eval_result
from tests.unit.evals.conftest import Run
from tests.unit.evals.written import write_judge

SERVER = str(Path(__file__).with_name("small_server.py"))
SUITE = """\
evaluations:
  one: {task: agentic_misalignment, assistant: Q, judge: judge.yaml, samples: 2,
        scenarios: [leaking], goals: [none], server: server.yaml}
  two: {task: agentic_misalignment, assistant: Q, judge: judge.yaml, samples: 1,
        scenarios: [blackmail], goals: [none], server: server.yaml}
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(log: Path) -> list[int]:
    """Return the processes that the servers started."""
    return [int(line.split()[1]) for line in log.read_text().splitlines() if line[:6] == "child "]


def num_tokens(folder: Path) -> int:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return len(render_chat(tokenizer, [{"role": "user", "content": "What is the time in Lisbon?"}]))


def write_server(folder: Path, tokens: int | str, **settings: object) -> None:
    command = [sys.executable, SERVER, "{model}", "{port}", str(tokens)]
    (folder / "server.yaml").write_text(json.dumps({"command": command, **settings}))


@pytest.fixture
def arguments(tmp_path: Path, tiny_model: Path) -> list[str | Path]:
    (tmp_path / "suite.yaml").write_text(SUITE)
    write_judge(tmp_path, [{"reply": "<verdict>no</verdict>"}])
    return ["run", tmp_path / "suite.yaml", tiny_model, "--out", tmp_path / "out"]


def test_it_serves_the_suite_once_and_is_gone(
    msm_eval: Run, arguments: list[str | Path], tiny_model: Path, tmp_path: Path
) -> None:
    write_server(tmp_path, num_tokens(tiny_model))
    ended = msm_eval(*arguments)
    assert ended.status == 0, ended.err
    result = load_eval_result(tmp_path / "out" / "one.json")
    assert {row.details["reply"] for row in result.rows} == {"I shall wait."}
    assert result.model.weights_sha256 is not None
    asked = str(result.protocol.settings["asked"])
    assert asked.startswith("server: ")
    assert "{model} {port}" in asked
    (child,) = children(tmp_path / "out" / "logs" / "server.log")
    assert not is_running(child)


def test_another_template_at_the_server_is_refused(
    msm_eval: Run, arguments: list[str | Path], tiny_model: Path, tmp_path: Path
) -> None:
    expected = num_tokens(tiny_model)
    write_server(tmp_path, expected + 1)
    ended = msm_eval(*arguments)
    assert ended.status == 2
    for part in (f"makes {expected + 1} tokens", f"makes {expected}.", "adds a BOS"):
        assert part in ended.err
    (child,) = children(tmp_path / "out" / "logs" / "server.log")
    assert not is_running(child)


def test_a_server_that_ends_says_why(
    msm_eval: Run, arguments: list[str | Path], tmp_path: Path
) -> None:
    write_server(tmp_path, "ends")
    ended = msm_eval(*arguments)
    assert ended.status == 1
    for part in ("ended with status 1", "the card has no memory left", "server.log"):
        assert part in ended.err


def test_a_server_that_does_not_get_ready_is_ended(
    msm_eval: Run, arguments: list[str | Path], tmp_path: Path
) -> None:
    write_server(tmp_path, "deaf", start_timeout_s=1, stop_timeout_s=1, ready="/ready")
    ended = msm_eval(*arguments)
    assert ended.status == 1
    assert "/ready did not answer in 1 s (start_timeout_s)" in ended.err
    (child,) = children(tmp_path / "out" / "logs" / "server.log")
    assert not is_running(child)


@pytest.mark.parametrize("signals", [(), (signal.SIGUSR2, signal.SIGTERM)], ids=["alone", "all"])
def test_it_goes_with_a_run_that_is_killed(
    signals: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    """Whoever started it is gone without a word: the pipe ends, and the guard ends the group.

    SLURM signals every process of a job, the guard too: it must not be the first to go.
    """
    log, guard_file = tmp_path / "log", tmp_path / "guard"
    command = [sys.executable, SERVER, "model", "0", "deaf"]
    code = (
        "import pathlib, subprocess, sys, time; "
        f"guard = subprocess.Popen([sys.executable, '-m', {server_guard.__name__!r}, '1', "
        f"*{command}], stdin=subprocess.PIPE, stderr=open({str(log)!r}, 'w')); "
        f"pathlib.Path({str(guard_file)!r}).write_text(str(guard.pid)); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (log.exists() and children(log)) and time.monotonic() < deadline:
        time.sleep(0.05)
    (child,) = children(log)
    assert is_running(child)
    for number in signals:
        os.kill(int(guard_file.read_text()), number)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": ["no-such-program", "{model}", "{port}"]}, "no program 'no-such-program'"),
        ({"command": ["python3", "{port}"]}, "no part holds {model}"),
        ({"command": ["python3", "{model}"]}, "no part holds {port}"),
        ({"ready": "health"}, "ready"),
        ({"comand": []}, "comand"),
    ],
)
def test_a_broken_file_is_found_before_anything_starts(
    msm_eval: Run,
    arguments: list[str | Path],
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    content: dict[str, object] = {"command": ["python3", "{model}", "{port}"]} | changes
    (tmp_path / "server.yaml").write_text(json.dumps(content))
    ended = msm_eval(*arguments)
    assert ended.status == 2
    assert "server.yaml" in ended.err
    assert message in ended.err
    assert not (tmp_path / "out").exists()


def test_a_running_server_and_one_to_start_are_one_too_many(
    msm_eval: Run, arguments: list[str | Path], tmp_path: Path
) -> None:
    write_server(tmp_path, 3)
    ended = msm_eval(*arguments, "--server", "http://127.0.0.1:9/v1")
    assert ended.status == 2
    assert "Leave out one of them" in ended.err
