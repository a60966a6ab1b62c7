"""Answers calls: from the journal, or by a client, many at a time, within a budget."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

from megatron_msm.errors import ConfigError
from megatron_msm.llm.budget import Budget
from megatron_msm.llm.call import Answer, Call, CallError, Client, Reply
from megatron_msm.llm.clients import new_client
from megatron_msm.llm.endpoints import AnthropicEndpoint, JournalEndpoint, OpenAIEndpoint
from megatron_msm.llm.journal import Journal
from megatron_msm.llm.pacing import Pacing, wait_before_retry_s
from megatron_msm.llm.prices import cost_usd

_FAILURES_IN_A_ROW = 32
"""So many calls that fail one after the other end the run: nothing would come of the others."""


@dataclass
class Traffic:
    """What a pool has done since it was opened."""

    replayed: int = 0
    """Answered from the journal."""
    paid: int = 0
    """Answered by a server."""
    retried: int = 0
    """Attempts that were repeated."""
    failed: int = 0
    """Calls that no attempt answered; a later run tries them again."""


@dataclass
class _Line:
    """An endpoint in use."""

    endpoint: OpenAIEndpoint | AnthropicEndpoint | JournalEndpoint
    client: Client
    pacing: Pacing
    failures_in_a_row: int = field(default=0)


class Pool:
    """A context in which calls are answered.

    Args:
        endpoints: By the name under which `answer` is told which to ask.
        journal: Where replies are kept.
        budget: What may be spent.
        clients: Clients to use instead of those that the endpoints describe, by the same names.

    Raises:
        ConfigError: An endpoint's key is missing, or its recording cannot be read.
    """

    def __init__(
        self,
        endpoints: Mapping[str, OpenAIEndpoint | AnthropicEndpoint | JournalEndpoint],
        *,
        journal: Journal,
        budget: Budget | None = None,
        clients: Mapping[str, Client] | None = None,
    ) -> None:
        self.journal = journal
        self.traffic = Traffic()
        self._budget = budget or Budget()
        self._runner = asyncio.Runner()
        self._lines = {
            name: _Line(
                endpoint,
                (clients or {}).get(name) or new_client(endpoint),
                Pacing(endpoint.concurrency),
            )
            for name, endpoint in endpoints.items()
        }

    def __enter__(self) -> "Pool":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give connections back."""
        with contextlib.suppress(Exception):
            self._runner.run(self._close())
        self._runner.close()

    def answer(
        self,
        calls: Sequence[Call],
        *,
        endpoint: str | Callable[[Call], str],
        on_answer: Callable[[Answer], None] | None = None,
    ) -> list[Answer]:
        """Answer calls, in their order. What was journalled costs nothing.

        Args:
            calls: What to ask; `model` is filled in by the endpoint.
            endpoint: The name of the one to ask, or a function that gives it.
            on_answer: Called as each answer comes, in no particular order.

        Raises:
            BudgetReachedError: A limit of spending was reached; calls in flight were finished.
            ConfigError: The server refuses every call: a wrong key, an unknown model.
        """
        asked = [self._addressed(call, endpoint) for call in calls]
        if len({call.key for call, _ in asked}) < len(asked):
            raise ValueError("two calls of one address and index would share a reply")
        answers: list[Answer | None] = [self.journal.find(call) for call, _ in asked]
        for found in answers:
            if found is not None:
                self.traffic.replayed += 1
                if on_answer is not None:
                    on_answer(found)
        missing = [(index, *asked[index]) for index, found in enumerate(answers) if found is None]
        for index, given in self._runner.run(self._ask(missing, on_answer)):
            answers[index] = given
        return [found for found in answers if found is not None]

    def _addressed(self, call: Call, endpoint: str | Callable[[Call], str]) -> tuple[Call, _Line]:
        line = self._lines[endpoint if isinstance(endpoint, str) else endpoint(call)]
        return replace(call, model=line.endpoint.model), line

    async def _ask(
        self,
        missing: Sequence[tuple[int, Call, _Line]],
        on_answer: Callable[[Answer], None] | None,
    ) -> list[tuple[int, Answer]]:
        waiting = iter(missing)
        given: list[tuple[int, Answer]] = []
        ended_by: list[Exception] = []

        async def work() -> None:
            # One iterator for all workers; an error of one lets the others finish what they asked.
            while not ended_by and (task := next(waiting, None)) is not None:
                index, call, line = task
                try:
                    answer = await self._ask_one(call, line)
                except Exception as error:
                    ended_by.append(error)
                    return
                given.append((index, answer))
                if on_answer is not None:
                    on_answer(answer)

        most = sum(line.endpoint.concurrency for line in self._lines.values())
        await asyncio.gather(*(work() for _ in range(min(most, len(missing)))))
        if ended_by:
            raise ended_by[0]
        return given

    async def _ask_one(self, call: Call, line: _Line) -> Answer:
        await line.pacing.acquire()
        try:
            self._budget.check(self.journal.total)
            reply = await self._attempts(call, line)
        except CallError as error:
            self.traffic.failed += 1
            line.failures_in_a_row += 1
            if error.outcome == "fatal" or line.failures_in_a_row >= _FAILURES_IN_A_ROW:
                raise ConfigError(f"{line.endpoint.model}: {error}") from None
            return Answer(call, None, failure=str(error), may_pass=error.outcome == "retry")
        finally:
            await line.pacing.release()
        answer = Answer(call, reply, cost_usd=cost_usd(reply.usage, line.endpoint))
        self.journal.add(answer)
        self.traffic.paid += 1
        line.failures_in_a_row = 0
        return answer

    async def _attempts(self, call: Call, line: _Line) -> Reply:
        attempt = 1
        while True:
            try:
                reply = await line.client.complete(call)
            except CallError as error:
                if error.is_rate_limit:
                    line.pacing.on_rate_limit(error.retry_after_s)
                if error.outcome != "retry" or attempt >= line.endpoint.max_attempts:
                    raise
                self.traffic.retried += 1
                await asyncio.sleep(wait_before_retry_s(attempt, error.retry_after_s))
                attempt += 1
            else:
                line.pacing.on_success()
                return reply

    async def _close(self) -> None:
        for line in self._lines.values():
            await line.client.close()
