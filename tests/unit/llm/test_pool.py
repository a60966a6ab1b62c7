import asyncio
import itertools
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from megatron_msm.errors import ConfigError
from megatron_msm.llm.budget import Budget, BudgetReachedError
from megatron_msm.llm.call import Call, CallError, Reply, Usage
from megatron_msm.llm.clients.sdk_errors import status_error
from megatron_msm.llm.endpoints import AnthropicEndpoint, JournalEndpoint, OpenAIEndpoint, Price
from megatron_msm.llm.journal import Journal
from megatron_msm.llm.pool import Pool
from tests.fault_server import reply_to
from tests.unit.llm.asking import numbered_calls as _calls
from tests.unit.llm.conftest import StartServer

_FREE = Price(input=0, output=0)
_UNIT = Price(input=1, output=1)


class _Scripted:
    """A client that answers as a list says: a text, a reply, or an error to raise."""

    def __init__(self, *script: str | Reply | CallError) -> None:
        self._script = itertools.chain(script, itertools.repeat("more"))
        self.asked: list[str] = []

    async def complete(self, call: Call) -> Reply:
        self.asked.append(call.address)
        await asyncio.sleep(0)
        given = next(self._script)
        if isinstance(given, CallError):
            raise given
        if isinstance(given, Reply):
            return given
        return Reply(given, "stop", Usage(600, 400), "scripted")

    async def close(self) -> None:
        pass


def _pool(
    tmp_path: Path, client: _Scripted, *, budget: Budget | None = None, **more: float
) -> Pool:
    endpoint = OpenAIEndpoint.model_validate({"model": "m", "price": _UNIT, **more})
    journal = Journal(tmp_path / "journal.jsonl")
    return Pool({"writer": endpoint}, journal=journal, budget=budget, clients={"writer": client})


def test_answers_come_in_the_order_of_the_calls_and_are_paid_once(tmp_path: Path) -> None:
    client = _Scripted(*[f"text {index}" for index in range(5)])
    with _pool(tmp_path, client, concurrency=1) as pool:
        first = pool.answer(_calls(3), endpoint="writer")
        again = pool.answer(_calls(5), endpoint="writer")
    texts = [answer.reply.text for answer in again if answer.reply]
    assert texts == [f"text {index}" for index in range(5)]
    assert first == again[:3]
    assert len(client.asked) == 5
    assert (pool.traffic.replayed, pool.traffic.paid) == (3, 5)


def test_a_rejected_call_is_told_and_a_later_run_asks_again(tmp_path: Path) -> None:
    client = _Scripted("one", CallError("HTTP 400: no", outcome="rejected"), "three", "two")
    with _pool(tmp_path, client, concurrency=1) as pool:
        one, two, _ = pool.answer(_calls(3), endpoint="writer")
        assert (one.reply and one.reply.text, two.reply, two.failure) == (
            "one",
            None,
            "HTTP 400: no",
        )
        again = pool.answer(_calls(3), endpoint="writer")
    assert again[1].reply is not None
    assert client.asked.count("documents/1") == 2


def test_what_passes_by_itself_is_tried_again_as_often_as_allowed(tmp_path: Path) -> None:
    soon = CallError("busy", outcome="retry", retry_after_s=0.01)
    with _pool(tmp_path, _Scripted(soon, soon, "at last"), max_attempts=3) as pool:
        (answer,) = pool.answer(_calls(1), endpoint="writer")
        assert answer.reply is not None
        assert pool.traffic.retried == 2
    with _pool(tmp_path / "b", _Scripted(soon, soon, soon), max_attempts=3) as pool:
        (answer,) = pool.answer(_calls(1), endpoint="writer")
        assert answer.failure == "busy"


def test_an_error_that_meets_every_call_ends_the_run_and_keeps_what_is_paid(
    tmp_path: Path,
) -> None:
    wrong_key = CallError("HTTP 401: wrong key", outcome="fatal")
    with _pool(tmp_path, _Scripted("one", wrong_key), concurrency=1) as pool:
        with pytest.raises(ConfigError, match="m: HTTP 401: wrong key"):
            pool.answer(_calls(10), endpoint="writer")
        assert len(pool.journal) == 1


def test_many_failures_in_a_row_end_the_run(tmp_path: Path) -> None:
    no = [CallError("HTTP 400: no", outcome="rejected")] * 100
    client = _Scripted(*no)
    with (
        _pool(tmp_path, client, concurrency=4) as pool,
        pytest.raises(ConfigError, match="HTTP 400"),
    ):
        pool.answer(_calls(100), endpoint="writer")
    assert len(client.asked) <= 36


@pytest.mark.parametrize("limit", [{"max_tokens": 9_500}, {"max_cost_usd": 0.0095}])
def test_a_budget_holds_within_the_calls_in_flight_and_can_be_raised(
    tmp_path: Path, limit: dict[str, float]
) -> None:
    """1,000 tokens and 0.001 dollars a call: the tenth is the last to start alone."""
    budget = Budget.model_validate(limit)
    with _pool(tmp_path, _Scripted(), budget=budget, concurrency=4) as pool:
        with pytest.raises(BudgetReachedError, match="is reached"):
            pool.answer(_calls(50), endpoint="writer")
        assert 10 <= len(pool.journal) <= 13
        pool.journal.__exit__(None, None, None)
    with _pool(tmp_path, _Scripted(), concurrency=4) as pool:
        assert len(pool.answer(_calls(50), endpoint="writer")) == 50
        assert pool.traffic.replayed >= 10


def test_a_cost_limit_without_a_known_price_is_refused(tmp_path: Path) -> None:
    endpoint = OpenAIEndpoint(model="a-model-nobody-sells", base_url="http://localhost:1/v1")
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool(
            {"writer": endpoint},
            journal=journal,
            budget=Budget(max_cost_usd=1),
            clients={"writer": _Scripted()},
        ) as pool,
        pytest.raises(BudgetReachedError, match="no known price"),
    ):
        pool.answer(_calls(100), endpoint="writer")


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_nothing_is_lost_doubled_or_paid_twice_on_a_server_that_fails(
    tmp_path: Path,
    fault_server: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    # A reply that is late for the client is paid twice: its limit is far above what a busy machine
    # takes for one, and far below a stall.
    served = fault_server("--faults", "0.3", "--stall-s", "20")
    url = served.url if kind == "openai" else served.url.removesuffix("/v1")
    fields = {"model": "m", "base_url": url, "price": _FREE, "timeout_s": 3.0, "max_attempts": 30}
    endpoint: OpenAIEndpoint | AnthropicEndpoint = (
        OpenAIEndpoint.model_validate({**fields, "concurrency": 64})
        if kind == "openai"
        else AnthropicEndpoint.model_validate({**fields, "concurrency": 64})
    )
    calls = _calls(300)
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"writer": endpoint}, journal=journal) as pool,
    ):
        _hurry(monkeypatch)
        answers = pool.answer(calls, endpoint="writer")
        assert pool.traffic.retried > 50
    assert [answer.reply.text for answer in answers if answer.reply] == [
        reply_to(call.prompt) for call in calls
    ]
    assert Counter(served.prompts()) == Counter(call.prompt for call in calls)


def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits before a retry are their own test's business."""
    monkeypatch.setattr("megatron_msm.llm.live.wait_before_retry_s", lambda attempt, asked: 0.01)


def test_usage_is_what_the_server_counted(
    tmp_path: Path, fault_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    url = fault_server().url
    price = Price(input=1_000_000, output=100_000_000, cached_input=0)
    endpoints: dict[str, OpenAIEndpoint | AnthropicEndpoint] = {
        "o": OpenAIEndpoint(model="m", base_url=url, price=price),
        "a": AnthropicEndpoint(model="m", base_url=url.removesuffix("/v1"), price=price),
    }
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool(endpoints, journal=journal) as pool,
    ):
        (by_openai,) = pool.answer(_calls(1), endpoint="o")
        (by_anthropic,) = pool.answer(_calls(2)[1:], endpoint="a")
    assert by_openai.reply is not None
    assert by_anthropic.reply is not None
    assert by_openai.reply.usage == Usage(10, 5, cached_tokens=4, reasoning_tokens=2)
    assert by_anthropic.reply.usage == Usage(13, 5, cached_tokens=3)
    # By hand: 6 fresh tokens at 1 dollar, 4 cached at 0, 5 of the reply at 100.
    assert by_openai.cost_usd == pytest.approx(506)
    assert by_anthropic.cost_usd == pytest.approx(510)


def test_a_missing_key_is_named_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"),
    ):
        Pool({"writer": OpenAIEndpoint(model="m")}, journal=journal)


def test_a_recording_answers_and_says_what_it_does_not_hold(tmp_path: Path) -> None:
    recording = tmp_path / "replies.jsonl"
    recording.write_text('{"call": "documents/0", "reply": {"text": "as recorded"}}\n')
    endpoint = JournalEndpoint(kind="journal", path=recording)
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"writer": endpoint}, journal=journal) as pool,
    ):
        (answer,) = pool.answer(_calls(1), endpoint="writer")
        assert answer.reply is not None
        assert answer.reply.text == "as recorded"
        unanswered = tmp_path / "unanswered.jsonl"
        assert not unanswered.exists()
        with pytest.raises(
            ConfigError, match=r"no reply for 2 of 2 calls .*'documents/1', index 0"
        ):
            pool.answer(_calls(3), endpoint="writer")
        asked = [json.loads(line) for line in unanswered.read_text().splitlines()]
        assert [line["call"] for line in asked] == ["documents/1", "documents/2"]
        assert [line["prompt"] for line in asked] == [call.prompt for call in _calls(3)[1:]]
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"writer": endpoint}, journal=journal),
    ):
        assert not unanswered.exists(), "the prompts of an earlier run"


def test_64_calls_in_flight_are_64_calls_in_flight(
    tmp_path: Path, fault_server: StartServer
) -> None:
    """A server that takes 0.2 s answers 640 calls in ten rounds; one after the other is 128 s."""
    endpoint = OpenAIEndpoint(
        model="m", base_url=fault_server("--delay-s", "0.2").url, price=_FREE, concurrency=64
    )
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"writer": endpoint}, journal=journal) as pool,
    ):
        started = time.monotonic()
        pool.answer(_calls(640), endpoint="writer")
        assert time.monotonic() - started < 60


def test_half_of_a_surrogate_pair_is_an_answer_and_the_same_one_when_replayed(
    tmp_path: Path,
) -> None:
    half = Reply("yes \ud83d no", "stop", Usage(1, 1), "m")
    with _pool(tmp_path, _Scripted(half)) as pool:
        first = pool.answer(_calls(1), endpoint="writer")
        assert first[0].reply is not None
        assert first[0].reply.text == "yes ? no"
        assert pool.answer(_calls(1), endpoint="writer") == first


def test_a_server_that_counts_no_tokens_has_no_known_cost(tmp_path: Path) -> None:
    uncounted = Reply("text", "stop", Usage(), "m")
    budget = Budget(max_cost_usd=100)
    with _pool(tmp_path, _Scripted(uncounted), budget=budget, concurrency=1) as pool:
        (answer,) = pool.answer(_calls(1), endpoint="writer")
        assert answer.cost_usd is None
        with pytest.raises(BudgetReachedError, match="1 calls have no known price"):
            pool.answer(_calls(2), endpoint="writer")


def test_a_quota_that_the_server_keeps_fails_no_call(tmp_path: Path) -> None:
    """Refused more often than max_attempts, while the server goes on answering others."""
    too_many = CallError("HTTP 429", outcome="retry", is_rate_limit=True, retry_after_s=0.001)
    script = [step for _ in range(8) for step in (too_many, "text")]
    with _pool(tmp_path, _Scripted(*script), max_attempts=2, concurrency=4) as pool:
        answers = pool.answer(_calls(8), endpoint="writer")
    assert all(answer.reply for answer in answers)
    with _pool(tmp_path / "b", _Scripted(*[too_many] * 9), max_attempts=2) as pool:
        (answer,) = pool.answer(_calls(1), endpoint="writer")
        assert answer.failure == "HTTP 429"


def test_an_answer_that_trickles_for_ever_meets_the_time_out(
    tmp_path: Path, fault_server: StartServer
) -> None:
    served = fault_server("--faults", "1", "--only", "trickle", "--stall-s", "30")
    endpoint = OpenAIEndpoint(
        model="m", base_url=served.url, price=_FREE, timeout_s=1.0, max_attempts=1
    )
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"writer": endpoint}, journal=journal) as pool,
    ):
        started = time.monotonic()
        (answer,) = pool.answer(_calls(1), endpoint="writer")
    assert answer.failure == "no whole answer in 1 s (timeout_s)"
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_key_that_the_server_repeats_is_in_no_message(
    tmp_path: Path, fault_server: StartServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    secret = "xk7-very-secret-1234567"
    monkeypatch.setenv("SOME_KEY", secret)
    served = fault_server("--faults", "1", "--only", "401")
    fields = {"model": "m", "api_key_env": "SOME_KEY", "price": _FREE}
    endpoint: OpenAIEndpoint | AnthropicEndpoint = (
        OpenAIEndpoint.model_validate({**fields, "base_url": served.url})
        if kind == "openai"
        else AnthropicEndpoint.model_validate({**fields, "base_url": served.url[:-3]})
    )
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"writer": endpoint}, journal=journal) as pool,
        pytest.raises(ConfigError, match="HTTP 401") as refused,
    ):
        pool.answer(_calls(1), endpoint="writer")
    assert "wrong key [key]" in str(refused.value)
    assert secret not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "message", "outcome"),
    [
        (429, "You exceeded your current quota, please check your plan", "fatal"),
        (400, "Your credit balance is too low to access the API", "fatal"),
        (429, "Rate limit reached for requests", "retry"),
        (404, "The model `x` does not exist", "fatal"),
        (400, "context_length_exceeded", "rejected"),
        (503, "overloaded", "retry"),
        (501, "not implemented", "rejected"),
    ],
)
def test_what_a_status_means(status: int, message: str, outcome: str) -> None:
    assert status_error(status, message, {}).outcome == outcome


def test_an_endpoint_that_is_slow_does_not_hold_up_another(tmp_path: Path) -> None:
    class Slow(_Scripted):
        async def complete(self, call: Call) -> Reply:
            await asyncio.sleep(0.3)
            return await super().complete(call)

    came: list[str] = []
    endpoint = OpenAIEndpoint(model="m", price=_UNIT, concurrency=2)
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool(
            {"slow": endpoint, "quick": endpoint.model_copy(update={"model": "q"})},
            journal=journal,
            clients={"slow": Slow(), "quick": _Scripted()},
        ) as pool,
    ):
        pool.answer(
            _calls(12),
            endpoint=lambda call: "slow" if int(call.address.split("/")[1]) < 6 else "quick",
            on_answer=lambda answer: came.append(answer.call.model),
        )
    assert came == ["q"] * 6 + ["m"] * 6
