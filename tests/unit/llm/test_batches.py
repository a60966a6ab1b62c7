import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

from megatron_msm.errors import ConfigError
from megatron_msm.llm.budget import Budget, BudgetReachedError
from megatron_msm.llm.call import Call, Usage
from megatron_msm.llm.endpoints import AnthropicEndpoint, OpenAIEndpoint, Price
from megatron_msm.llm.journal import Journal
from megatron_msm.llm.pool import Pool
from megatron_msm.llm.prices import cost_usd
from tests.fault_server import reply_to
from tests.unit.llm.asking import numbered_calls
from tests.unit.llm.conftest import Served, StartServer

_KINDS = ("openai", "anthropic")


def _fields(kind: str, served: Served, **more: object) -> dict[str, object]:
    return {
        "kind": kind,
        "model": "m",
        "base_url": served.url if kind == "openai" else served.url.removesuffix("/v1"),
        "price": {"input": 1, "output": 1},
        "batch": True,
        "max_attempts": 20,
        **more,
    }


def _endpoint(kind: str, served: Served, **more: object) -> OpenAIEndpoint | AnthropicEndpoint:
    fields = _fields(kind, served, **more)
    if kind == "openai":
        return OpenAIEndpoint.model_validate(fields)
    return AnthropicEndpoint.model_validate(fields)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    monkeypatch.setattr("megatron_msm.llm.batched._LONGEST_POLL_S", 0.5)
    monkeypatch.setattr("megatron_msm.llm.batched.wait_before_retry_s", lambda attempt, asked: 0.05)


@pytest.mark.parametrize("kind", _KINDS)
def test_replies_are_matched_by_id_and_what_expired_or_failed_is_asked_again_alone(
    tmp_path: Path, fault_server: StartServer, kind: str
) -> None:
    """Results in reverse order, a third of them missing each time, a third of requests failing."""
    served = fault_server(
        "--batch-faults", "0.3", "--batch-s", "0.2", "--faults", "0.3", "--stall-s", "3"
    )
    calls = numbered_calls(60)
    calls[7] = Call(address="documents/7", step="documents", prompt="refuse this")
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"w": _endpoint(kind, served, timeout_s=1)}, journal=journal) as pool,
    ):
        answers = pool.answer(calls, endpoint="w")
        assert pool.answer(calls[8:], endpoint="w") == answers[8:]
    refused = answers.pop(7)
    assert refused.reply is None
    assert "made to be refused" in (refused.failure or "")
    assert not refused.may_pass
    del calls[7]
    assert [answer.reply and answer.reply.text for answer in answers] == [
        reply_to(call.prompt) for call in calls
    ]
    assert Counter(served.prompts()) == Counter(call.prompt for call in calls)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_call_in_a_batch_costs_half(tmp_path: Path, fault_server: StartServer, kind: str) -> None:
    served = fault_server("--batch-s", "0.1")
    endpoint = _endpoint(kind, served)
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"w": endpoint}, journal=journal) as pool,
    ):
        (answer,) = pool.answer(numbered_calls(1), endpoint="w")
    assert answer.reply is not None
    tokens = answer.reply.usage.input_tokens + answer.reply.usage.output_tokens
    assert answer.cost_usd == pytest.approx(tokens * 1e-6 / 2)
    published = {"price": None, "base_url": None}
    model = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}[kind]
    batched = endpoint.model_copy(update={**published, "model": model})
    live = batched.model_copy(update={"batch": False})
    whole, half = cost_usd(Usage(10, 5), live), cost_usd(Usage(10, 5), batched)
    assert whole is not None
    assert half == pytest.approx(whole / 2)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_batch_whose_id_was_lost_is_found_again(
    tmp_path: Path, fault_server: StartServer, kind: str
) -> None:
    """As after a kill between the provider's making it and our writing its id down."""
    served = fault_server("--batch-s", "0.5")
    calls = numbered_calls(20)
    path = tmp_path / "journal.jsonl"
    for another in (numbered_calls(20), numbered_calls(30)[10:]):
        # Batches of as many calls by others are no match unless they hold these calls.
        other = tmp_path / f"other{len(list(tmp_path.glob('other*')))}.jsonl"
        renamed = [
            Call(address="x/" + call.address, step="x", prompt="x" + call.prompt)
            for call in another
        ]
        with (
            Journal(other) as journal,
            Pool({"w": _endpoint(kind, served)}, journal=journal) as pool,
        ):
            pool.answer(renamed, endpoint="w")
    with Journal(path) as journal, Pool({"w": _endpoint(kind, served)}, journal=journal) as pool:
        pool.answer(calls, endpoint="w")
    (record,) = (tmp_path / "journal.jsonl.batches").glob("*.json")
    fields = json.loads(record.read_bytes())
    assert (fields["open_keys"], fields["calls"]) == ([], 20)
    keys = [json.loads(line)["key"] for line in path.read_bytes().splitlines()]
    record.write_text(json.dumps({**fields, "id": None, "open_keys": keys}))
    path.write_bytes(b"")
    with Journal(path) as journal, Pool({"w": _endpoint(kind, served)}, journal=journal) as pool:
        answers = pool.answer(calls, endpoint="w")
    assert [answer.reply and answer.reply.text for answer in answers] == [
        reply_to(call.prompt) for call in calls
    ]
    assert Counter(served.prompts())["write number 3"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", _KINDS)
def test_kills_at_any_time_pay_no_batch_twice(
    tmp_path: Path, fault_server: StartServer, kind: str
) -> None:
    served = fault_server("--batch-s", "1.5", "--batch-faults", "0.2", "--delay-s", "0.15")
    journal, out = tmp_path / "journal.jsonl", tmp_path / "answers.jsonl"
    fields = json.dumps(_fields(kind, served))
    command = [sys.executable, "-m", "tests.unit.llm.asking", fields, str(journal), "40", str(out)]
    chance = random.Random(7)
    records = tmp_path / "journal.jsonl.batches"
    for kill in range(6):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as asking:
            deadline = time.monotonic() + 60
            while kill < 3 and len(list(records.glob("0*.json"))) <= kill:
                assert time.monotonic() < deadline
                if asking.poll() is not None:
                    break
                time.sleep(0.005)
            # The first three just after a record is written, while the request is under way.
            time.sleep(chance.uniform(0, 0.2) if kill < 3 else chance.uniform(1, 4))
            asking.kill()
    assert subprocess.run(command, check=False).returncode == 0
    calls = numbered_calls(40)
    assert Counter(served.prompts()) == Counter(call.prompt for call in calls)
    answers = [orjson.loads(line)["reply"]["text"] for line in out.read_bytes().splitlines()]
    assert answers == [reply_to(call.prompt) for call in calls]


def test_a_budget_holds_in_batches(tmp_path: Path, fault_server: StartServer) -> None:
    """15 tokens a call: the first batch is what the most a call can use allows, then the mean."""
    served = fault_server("--batch-s", "0.1")
    calls = [
        Call(address=f"d/{index}", step="d", prompt="write " * 10, max_tokens=80)
        for index in range(50)
    ]
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool(
            {"w": _endpoint("openai", served)}, journal=journal, budget=Budget(max_tokens=300)
        ) as pool,
    ):
        with pytest.raises(BudgetReachedError, match="max_tokens of 300 is reached"):
            pool.answer(calls, endpoint="w")
        assert len(journal) == 20
    assert len(served.prompts()) == 20


def test_a_batch_whose_calls_are_all_refused_ends_the_run(
    tmp_path: Path, fault_server: StartServer
) -> None:
    served = fault_server("--batch-s", "0.1")
    calls = [
        Call(address=f"d/{index}", step="d", prompt=f"refuse this {index}") for index in range(40)
    ]
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"w": _endpoint("openai", served)}, journal=journal) as pool,
        pytest.raises(ConfigError, match="all of 40 calls are refused, the first with: HTTP 400"),
    ):
        pool.answer(calls, endpoint="w")


def test_batches_keep_the_price_of_an_unknown_model_unknown() -> None:
    endpoint = OpenAIEndpoint(model="nobody-sells-this", batch=True, base_url="http://localhost:1")
    usage = Usage(10, 5)
    assert cost_usd(usage, endpoint) is None
    assert cost_usd(usage, endpoint.model_copy(update={"price": Price(input=0, output=0)})) == 0
