"""Answers calls: from the journal, or by a client, many at a time, within a budget."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

from megatron_msm.errors import PreemptedError
from megatron_msm.llm.batch_records import BatchRecords
from megatron_msm.llm.batched import BatchLine
from megatron_msm.llm.budget import Budget
from megatron_msm.llm.call import Answer, Call, Client
from megatron_msm.llm.clients import new_batch_client, new_client
from megatron_msm.llm.clients.recorded import UNANSWERED_FILE, RecordedClient
from megatron_msm.llm.endpoints import GrammarEndpoint, OfflineEndpoint, WriterEndpoint
from megatron_msm.llm.journal import Journal
from megatron_msm.llm.ledger import Ledger, Traffic
from megatron_msm.llm.live import LiveLine
from megatron_msm.llm.stopping import Stop, StopAskedError

OnAnswer = Callable[[Answer], None]
_Line = LiveLine | BatchLine
_Missing = Mapping[_Line, Sequence[tuple[int, Call]]]
"""Calls that the journal does not hold, with their indices among those asked for."""


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
        endpoints: Mapping[str, WriterEndpoint],
        *,
        journal: Journal,
        budget: Budget | None = None,
        clients: Mapping[str, Client] | None = None,
    ) -> None:
        self.journal = journal
        self._ledger = Ledger(journal, budget or Budget())
        self._runner = asyncio.Runner()
        records = BatchRecords(journal.path)
        self._lines: dict[str, _Line] = {}
        self._recordings: dict[_Line, RecordedClient] = {}
        self._unanswered = journal.path.with_name(UNANSWERED_FILE)
        self._unanswered.unlink(missing_ok=True)
        for name, given in endpoints.items():
            if not isinstance(given, OfflineEndpoint) and given.batch:
                sender = new_batch_client(given)
                self._lines[name] = BatchLine(given, sender, self._ledger, records)
            else:
                client = (clients or {}).get(name)
                if client is None:
                    # A grammar answers steps, which only whoever asks knows.
                    assert not isinstance(given, GrammarEndpoint), f"{name}: needs its client"
                    client = new_client(given)
                line = self._lines[name] = LiveLine(given, client, self._ledger)
                if isinstance(client, RecordedClient):
                    self._recordings[line] = client

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
            ConfigError: The server refuses every call: a wrong key, an unknown model. Or a
                recording lacks replies: the prompts are written beside the journal then.
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
        missing: dict[_Line, list[tuple[int, Call]]] = {}
        for index, (call, line) in enumerate(asked):
            if answers[index] is None:
                missing.setdefault(line, []).append((index, call))
        for line, tasks in missing.items():
            if line in self._recordings:
                self._recordings[line].check([call for _, call in tasks], self._unanswered)
        for index, given in self._run(missing, on_answer):
            answers[index] = given
        return [found for found in answers if found is not None]

    def _addressed(self, call: Call, endpoint: str | Callable[[Call], str]) -> tuple[Call, _Line]:
        line = self._lines[endpoint if isinstance(endpoint, str) else endpoint(call)]
        return replace(call, model=line.endpoint.model), line

    def _run(
        self,
        missing: _Missing,
        on_answer: OnAnswer | None,
    ) -> list[tuple[int, Answer]]:
        if not missing:
            return []
        go_on = "Run the same command to go on: nothing of that is paid again."
        try:
            return self._runner.run(self._ask(missing, on_answer))
        except StopAskedError:
            raise PreemptedError(
                f"stopped: {self.journal.path} holds {len(self.journal):,} replies, those of the "
                f"calls in flight included{self._in_batches()}. {go_on}"
            ) from None
        except asyncio.CancelledError:
            raise PreemptedError(
                f"stopped at once: {self.journal.path} holds {len(self.journal):,} replies, those "
                f"of the calls in flight are lost{self._in_batches()}. {go_on}"
            ) from None

    def _in_batches(self) -> str:
        number = self.traffic.in_batches
        return f", and {number:,} calls in batches go on at the provider" if number else ""

    async def _ask(
        self,
        missing: _Missing,
        on_answer: OnAnswer | None,
    ) -> list[tuple[int, Answer]]:
        given: list[tuple[int, Answer]] = []
        ended_by: list[Exception] = []
        stop = Stop(lambda: self.traffic.in_flight)

        def give(index: int, answer: Answer) -> None:
            given.append((index, answer))
            if on_answer is not None:
                on_answer(answer)

        async def work(line: LiveLine, waiting: Iterator[tuple[int, Call]]) -> None:
            # One iterator for an endpoint's workers; an error of one lets the others finish what
            # they have asked, and nothing new is asked of any endpoint.
            while not stop.is_asked and (task := next(waiting, None)) is not None:
                index, call = task
                try:
                    give(index, await line.ask(call, stop))
                except Exception as error:
                    ended_by.append(error)
                    stop.ask()

        async def work_in_batches(line: BatchLine, tasks: Sequence[tuple[int, Call]]) -> None:
            index_of = {call.key: index for index, call in tasks}
            try:
                await line.ask(
                    [call for _, call in tasks],
                    stop,
                    lambda answer: give(index_of[answer.call.key], answer),
                )
            except Exception as error:
                ended_by.append(error)
                stop.ask()

        workers: list[Coroutine[None, None, None]] = []
        for line, tasks in missing.items():
            if isinstance(line, BatchLine):
                workers.append(work_in_batches(line, tasks))
            else:
                waiting = iter(tasks)
                number = min(line.endpoint.concurrency, len(tasks))
                workers += [work(line, waiting) for _ in range(number)]
        with stop.listening():
            await asyncio.gather(*workers)
        if ended_by:
            raise ended_by[0]
        if stop.is_asked and len(given) < sum(len(tasks) for tasks in missing.values()):
            raise StopAskedError
        return given

    async def _close(self) -> None:
        for line in self._lines.values():
            await line.close()
