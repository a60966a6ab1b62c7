"""Answers calls: from the journal, or by a client, many at a time, within a budget."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

from megatron_msm.errors import PreemptedError
from megatron_msm.llm.budget import Budget
from megatron_msm.llm.call import Answer, Call, Client
from megatron_msm.llm.clients import new_client
from megatron_msm.llm.endpoints import AnthropicEndpoint, JournalEndpoint, OpenAIEndpoint
from megatron_msm.llm.journal import Journal
from megatron_msm.llm.ledger import Ledger, Traffic
from megatron_msm.llm.live import LiveLine
from megatron_msm.llm.stopping import Stop, StopAskedError

OnAnswer = Callable[[Answer], None]


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
        self._ledger = Ledger(journal, budget or Budget())
        self._runner = asyncio.Runner()
        self._lines = {
            name: LiveLine(
                endpoint, (clients or {}).get(name) or new_client(endpoint), self._ledger
            )
            for name, endpoint in endpoints.items()
        }

    @property
    def traffic(self) -> Traffic:
        """What has been done so far."""
        return self._ledger.traffic

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
        on_answer: OnAnswer | None = None,
    ) -> list[Answer]:
        """Answer calls, in their order. What was journalled costs nothing.

        The first Ctrl-C or SIGTERM finishes the calls in flight, the second leaves at once.

        Args:
            calls: What to ask; `model` is filled in by the endpoint.
            endpoint: The name of the one to ask, or a function that gives it.
            on_answer: Called as each answer comes, in no particular order.

        Raises:
            BudgetReachedError: A limit of spending was reached; calls in flight were finished.
            ConfigError: The server refuses every call: a wrong key, an unknown model.
            JournalWriteError: The disk does not take a reply.
            PreemptedError: The run was told to stop.
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
        missing: dict[LiveLine, list[tuple[int, Call]]] = {}
        for index, (call, line) in enumerate(asked):
            if answers[index] is None:
                missing.setdefault(line, []).append((index, call))
        for index, given in self._run(missing, on_answer):
            answers[index] = given
        return [found for found in answers if found is not None]

    def _addressed(
        self, call: Call, endpoint: str | Callable[[Call], str]
    ) -> tuple[Call, LiveLine]:
        line = self._lines[endpoint if isinstance(endpoint, str) else endpoint(call)]
        return replace(call, model=line.endpoint.model), line

    def _run(
        self, missing: Mapping[LiveLine, Sequence[tuple[int, Call]]], on_answer: OnAnswer | None
    ) -> list[tuple[int, Answer]]:
        if not missing:
            return []
        go_on = "Run the same command to go on: nothing of that is paid again."
        try:
            return self._runner.run(self._ask(missing, on_answer))
        except StopAskedError:
            raise PreemptedError(
                f"stopped: {self.journal.path} holds {len(self.journal):,} replies, those of the "
                f"calls in flight included. {go_on}"
            ) from None
        except asyncio.CancelledError:
            raise PreemptedError(
                f"stopped at once: {self.journal.path} holds {len(self.journal):,} replies, those "
                f"of the calls in flight are lost. {go_on}"
            ) from None

    async def _ask(
        self, missing: Mapping[LiveLine, Sequence[tuple[int, Call]]], on_answer: OnAnswer | None
    ) -> list[tuple[int, Answer]]:
        given: list[tuple[int, Answer]] = []
        ended_by: list[Exception] = []
        stop = Stop(lambda: self.traffic.in_flight)

        async def work(line: LiveLine, waiting: Iterator[tuple[int, Call]]) -> None:
            # One iterator for an endpoint's workers; an error of one lets the others finish what
            # they have asked, and nothing new is asked of any endpoint.
            while not stop.is_asked and (task := next(waiting, None)) is not None:
                index, call = task
                try:
                    answer = await line.ask(call, stop)
                    given.append((index, answer))
                    if on_answer is not None:
                        on_answer(answer)
                except Exception as error:
                    ended_by.append(error)
                    stop.ask()

        with stop.listening():
            await asyncio.gather(
                *(
                    work(line, waiting)
                    for line, tasks in missing.items()
                    for waiting in [iter(tasks)]
                    for _ in range(min(line.endpoint.concurrency, len(tasks)))
                )
            )
        if ended_by:
            raise ended_by[0]
        if stop.is_asked and len(given) < sum(len(tasks) for tasks in missing.values()):
            raise StopAskedError
        return given

    async def _close(self) -> None:
        for line in self._lines.values():
            await line.close()
