"""Kills of the process that asks: the journal and the server's own log of whole replies agree."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

from tests.fault_server import reply_to
from tests.unit.llm.asking import numbered_calls
from tests.unit.llm.conftest import Served, StartServer

_CALLS = 5_000
_KILLS = 20
_IN_FLIGHT = 64
_DELAY_S = 0.2


def _asking(url: str, journal: Path, out: Path, *, timeout_s: float) -> subprocess.Popen[bytes]:
    endpoint = {
        "kind": "openai",
        "model": "m",
        "base_url": url,
        "price": {"input": 1, "output": 2},
        "concurrency": _IN_FLIGHT,
        "timeout_s": timeout_s,
        "max_attempts": 30,
    }
    command = [sys.executable, "-m", "tests.unit.llm.asking", json.dumps(endpoint)]
    return subprocess.Popen([*command, str(journal), str(_CALLS), str(out)])


def _journalled(journal: Path) -> Counter[str]:
    """Return the addresses of whole lines, read without the code under test."""
    if not journal.exists():
        return Counter()
    whole = [line for line in journal.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]
    return Counter(orjson.loads(line)["call"] for line in whole)


def _wait_for(served: Served, number: int, asking: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while len(served.prompts()) < number:
        assert asking.poll() is None, "it ended by itself before it was killed"
        assert time.monotonic() < deadline, f"{len(served.prompts())} replies, and no more come"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_20_kills_in_5_000_calls_lose_double_and_pay_nothing_twice_but_calls_in_flight(
    tmp_path: Path, fault_server: StartServer
) -> None:
    served = fault_server("--faults", "0.1", "--stall-s", "20", "--delay-s", str(_DELAY_S))
    journal, out = tmp_path / "killed.jsonl", tmp_path / "killed_answers.jsonl"
    address_of = {call.prompt: call.address for call in numbered_calls(_CALLS)}
    chance = random.Random(5)
    lost_to_kills: Counter[str] = Counter()
    for kill in range(1, _KILLS + 1):
        asking = _asking(served.url, journal, out, timeout_s=5)
        _wait_for(served, int(_CALLS * kill / (_KILLS + 2)) + chance.randrange(100), asking)
        time.sleep(chance.uniform(0, 0.3))
        asking.kill()
        asking.wait()
        time.sleep(2 * _DELAY_S + 0.5)  # The server notices, and writes what it had sent.
        paid = Counter(address_of[prompt] for prompt in served.prompts())
        lost = paid - _journalled(journal) - lost_to_kills
        assert lost.total() <= _IN_FLIGHT, f"kill {kill} lost {lost.total()} paid replies"
        lost_to_kills += lost
    asking = _asking(served.url, journal, out, timeout_s=5)
    assert asking.wait(timeout=300) == 0

    paid = Counter(address_of[prompt] for prompt in served.prompts())
    assert _journalled(journal) == Counter(address_of.values())
    assert paid - Counter(address_of.values()) == lost_to_kills
    assert lost_to_kills.total() > 0, "no kill met a call in flight: the test shows nothing"
    answers = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert [(answer["call"]["prompt"], answer["reply"]["text"]) for answer in answers] == [
        (prompt, reply_to(prompt)) for prompt in address_of
    ]

    calm, undisturbed = fault_server(), tmp_path / "undisturbed_answers.jsonl"
    asking = _asking(calm.url, tmp_path / "undisturbed.jsonl", undisturbed, timeout_s=60)
    assert asking.wait(timeout=300) == 0
    assert sorted(calm.prompts()) == sorted(address_of)
    assert out.read_bytes() == undisturbed.read_bytes()
