import json
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

from megatron_msm.errors import ConfigError
from megatron_msm.llm.journal import Journal
from tests.fault_server import reply_to
from tests.unit.llm.asking import numbered_calls
from tests.unit.llm.conftest import StartServer

_IN_FLIGHT = 8


def _asking(url: str, folder: Path, number: int) -> list[str]:
    endpoint = {
        "kind": "openai",
        "model": "m",
        "base_url": url,
        "price": {"input": 0, "output": 0},
        "concurrency": _IN_FLIGHT,
    }
    module = [sys.executable, "-m", "tests.unit.llm.asking", json.dumps(endpoint)]
    return [*module, str(folder / "journal.jsonl"), str(number), str(folder / "answers.jsonl")]


def _journalled(folder: Path) -> list[str]:
    lines = (folder / "journal.jsonl").read_bytes().splitlines()
    return [orjson.loads(line)["call"] for line in lines]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_the_calls_in_flight_and_nothing_is_paid_twice(
    tmp_path: Path, fault_server: StartServer, number: signal.Signals
) -> None:
    served = fault_server("--delay-s", "0.4")
    command = _asking(served.url, tmp_path, 100)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as asking:
        _wait_for_replies(tmp_path, _IN_FLIGHT)
        asking.send_signal(number)
        _, said = asking.communicate(timeout=60)
    assert asking.returncode == 75
    assert "calls in flight are being finished and kept" in said
    assert f"journal.jsonl holds {len(_journalled(tmp_path))} replies" in said
    assert "Run the same command to go on" in said
    assert "Traceback" not in said
    assert len(_journalled(tmp_path)) < 100
    assert len(served.prompts()) == len(_journalled(tmp_path))

    assert subprocess.run(command, check=False).returncode == 0
    assert Counter(served.prompts()) == Counter(call.prompt for call in numbered_calls(100))


def test_the_second_signal_leaves_at_once_and_keeps_what_is_journalled(
    tmp_path: Path, fault_server: StartServer
) -> None:
    served = fault_server("--faults", "0.5", "--only", "stall", "--stall-s", "60")
    command = _asking(served.url, tmp_path, 100)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as asking:
        _wait_for_replies(tmp_path, 1)
        time.sleep(0.5)
        asking.send_signal(signal.SIGINT)
        time.sleep(0.5)
        asking.send_signal(signal.SIGINT)
        _, said = asking.communicate(timeout=20)
    assert asking.returncode == 75
    assert "those of the calls in flight are lost" in said
    assert "Traceback" not in said
    assert len(served.prompts()) == len(_journalled(tmp_path))


def test_a_full_disk_is_said_and_tears_nothing(tmp_path: Path, fault_server: StartServer) -> None:
    """The limit of a file's size stands for the full disk: a write comes back short, then fails."""
    served = fault_server()
    command = _asking(served.url, tmp_path, 100)
    full = subprocess.run(
        command,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000)),
    )
    kept = _journalled(tmp_path)
    assert full.returncode == 1
    assert f"cannot be written (File too large). It holds {len(kept)} replies" in full.stderr
    assert "Traceback" not in full.stderr
    assert 0 < len(kept) < 100
    assert len(served.prompts()) - len(kept) <= _IN_FLIGHT

    assert subprocess.run(command, check=False).returncode == 0
    assert sorted(_journalled(tmp_path)) == sorted(call.address for call in numbered_calls(100))
    answers = (tmp_path / "answers.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["reply"]["text"] for line in answers] == [
        reply_to(call.prompt) for call in numbered_calls(100)
    ]


def test_a_place_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written there .*Give a folder"):
        Journal(tmp_path / "file" / "journal.jsonl")


def _wait_for_replies(folder: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    journal = folder / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < number:
        assert time.monotonic() < deadline, "no replies come"
        time.sleep(0.02)
