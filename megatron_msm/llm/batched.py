"""An endpoint that is asked in batches: sent, found again after a kill, collected, asked again.

    record on disk -> batch made -> id on disk -> polled -> results in the journal -> record closed

A kill between any two of these loses nothing that is paid: what has an id is collected by the next
run, and what has none is looked for in the provider's list before it is sent again.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import orjson

from megatron_msm.errors import ConfigError, UnansweredError
from megatron_msm.llm.batch_client import BatchClient, BatchState
from megatron_msm.llm.batch_records import BatchRecord, BatchRecords
from megatron_msm.llm.budget import BudgetReachedError
from megatron_msm.llm.call import Answer, Call, CallError, Reply
from megatron_msm.llm.endpoints import AnthropicEndpoint, OpenAIEndpoint
from megatron_msm.llm.ledger import Ledger
from megatron_msm.llm.pacing import wait_before_retry_s
from megatron_msm.llm.stopping import Stop

_log = logging.getLogger(__name__)
_MOST_CALLS = 10_000
_MOST_BYTES = 100_000_000
"""Half of what the providers take, as their requests hold more than the prompts."""
_FIRST_POLL_S = 0.5
_LONGEST_POLL_S = 60.0
_LISTED_WITHIN_S = 5.0
_REFUSED_BATCH = 32
"""If so many calls come back refused and none answered, nothing would come of others."""

Result = TypeVar("Result")
Give = Callable[[Answer], None]


class BatchLine:
    """An endpoint in use.

    Args:
        endpoint: Which.
        client: Sends its batches.
        ledger: Where replies go.
        records: What was sent.
    """

    def __init__(
        self,
        endpoint: OpenAIEndpoint | AnthropicEndpoint,
        client: BatchClient,
        ledger: Ledger,
        records: BatchRecords,
    ) -> None:
        self.endpoint = endpoint
        self._client = client
        self._ledger = ledger
        self._records = records
        self._in_batches = 0
        self._name = f"{endpoint.kind} {endpoint.base_url or ''} {endpoint.model}"

    async def close(self) -> None:
        """Give connections back."""
        await self._client.close()

    async def ask(self, calls: Sequence[Call], stop: Stop, give: Give) -> None:
        """Ask calls, and give an answer for each as its batch ends.

        Raises:
            BudgetReachedError: A limit of spending is reached; what was sent is collected.
            ConfigError: The provider refuses a batch, or all of its calls.
            StopAskedError: The run is to stop. Batches that were sent go on at the provider.
            UnansweredError: A batch was cancelled; what it answered is kept.
        """
        waiting = {call.key: call for call in calls}
        tries: Counter[str] = Counter()
        running = await self._sent_before(waiting, stop)
        poll_s = _FIRST_POLL_S
        while waiting:
            running += await self._send(waiting, running, stop)
            self._count(running)
            await stop.sleep(poll_s)
            poll_s = min(poll_s * 1.5, _LONGEST_POLL_S)
            for record in list(running):
                state = await self._patiently(partial(self._client.state, _id(record)), stop)
                if state.is_ended:
                    await self._collect(record, state, waiting, tries, stop, give)
                    running.remove(record)
                    poll_s = _FIRST_POLL_S
        self._count(running)

    def _count(self, running: Sequence[BatchRecord]) -> None:
        before, self._in_batches = self._in_batches, sum(len(each.open_keys) for each in running)
        self._ledger.traffic.in_batches += self._in_batches - before

    async def _sent_before(self, waiting: Mapping[str, Call], stop: Stop) -> list[BatchRecord]:
        """Return the batches of earlier runs that hold calls of this one."""
        found = []
        for record in self._records.open_ones(self._name):
            if waiting.keys().isdisjoint(record.open_keys):
                continue
            if record.id is None and not await self._is_found(record, stop):
                # A request that was under way at the kill may take a moment to be listed.
                await stop.sleep(_LISTED_WITHIN_S)
                await self._is_found(record, stop)
            if record.id is None:
                self._records.forget(record)
            else:
                found.append(record)
        return found

    def _unsent(self, waiting: Mapping[str, Call], running: Sequence[BatchRecord]) -> list[Call]:
        sent = {key for record in running for key in record.open_keys}
        return [call for key, call in waiting.items() if key not in sent]

    async def _send(
        self, waiting: Mapping[str, Call], running: Sequence[BatchRecord], stop: Stop
    ) -> list[BatchRecord]:
        """Send what is not sent, in as many batches as it takes, within the budget."""
        sent: list[BatchRecord] = []
        spent = self._ledger.journal.total
        for record in running:
            for key in record.open_keys:
                if key in waiting:
                    spent = spent.plus(*self._ledger.expected(waiting[key], self.endpoint))
        chunk: list[Call] = []
        size = 0
        try:
            for call in self._unsent(waiting, running):
                self._ledger.budget.check(spent)
                spent = spent.plus(*self._ledger.expected(call, self.endpoint))
                num_bytes = len(orjson.dumps([call.system, call.prompt, call.schema]))
                if chunk and (len(chunk) == _MOST_CALLS or size + num_bytes > _MOST_BYTES):
                    sent.append(await self._send_one(chunk, stop))
                    chunk, size = [], 0
                chunk.append(call)
                size += num_bytes
        except BudgetReachedError:
            # What was sent is collected first; what it really cost may leave room for more.
            if not running and not sent and not chunk:
                raise
        if chunk:
            sent.append(await self._send_one(chunk, stop))
        return sent

    async def _send_one(self, calls: Sequence[Call], stop: Stop) -> BatchRecord:
        prepared = await self._patiently(partial(self._client.prepare, calls), stop)
        keys = [call.key for call in calls]
        record = self._records.add(endpoint=self._name, prepared=prepared, keys=keys)
        attempt = 1
        while record.id is None:
            try:
                async with self._in_time():
                    record.id = await self._client.create(calls, prepared)
            except CallError as error:
                if error.outcome != "retry":
                    self._records.forget(record)
                    raise ConfigError(f"{self.endpoint.model}: {error}") from None
                self._ledger.traffic.retried += 1
                await stop.sleep(wait_before_retry_s(attempt, error.retry_after_s))
                attempt += 1
                # Its answer may have been lost, and the batch made all the same.
                await self._is_found(record, stop)
        self._records.save(record)
        _log.info("batch %s: %d calls sent", record.id, len(calls))
        return record

    async def _is_found(self, record: BatchRecord, stop: Stop) -> bool:
        """Look for the batch of a record without an id, and fill the id in."""
        for found in await self._patiently(partial(self._client.candidates, record), stop):
            if found.id in self._records.ids:
                continue
            if found.is_certain or await self._holds(found.id, record, stop):
                record.id = found.id
                self._records.save(record)
                return True
        return False

    async def _holds(self, batch_id: str, record: BatchRecord, stop: Stop) -> bool:
        """Wait for a batch to end, and say whether its results are those of a record's calls."""
        poll_s = _FIRST_POLL_S
        while not (await self._patiently(partial(self._client.state, batch_id), stop)).is_ended:
            _log.info("batch %s may be an earlier run's: waiting for its end", batch_id)
            await stop.sleep(poll_s)
            poll_s = min(poll_s * 1.5, _LONGEST_POLL_S)
        keys = {key for key, _ in await self._read(batch_id, stop)}
        return bool(keys) and keys <= set(record.open_keys)

    async def _read(self, batch_id: str, stop: Stop) -> list[tuple[str, Reply | CallError]]:
        async def read() -> list[tuple[str, Reply | CallError]]:
            return [(found.key, found.outcome) async for found in self._client.results(batch_id)]

        return await self._patiently(read, stop)

    async def _collect(
        self,
        record: BatchRecord,
        state: BatchState,
        waiting: dict[str, Call],
        tries: Counter[str],
        stop: Stop,
        give: Give,
    ) -> None:
        """Keep an ended batch's replies; calls without one are answered as failed or stay."""
        results = dict(await self._read(_id(record), stop))
        expired = CallError("the batch ended before its turn", outcome="retry")
        answers = []
        for key in record.open_keys:
            call = waiting.get(key)
            if call is None:
                continue
            outcome = results.get(key, expired)
            if isinstance(outcome, Reply):
                answers.append(self._ledger.keep(call, outcome, self.endpoint))
                continue
            tries[key] += 1
            if outcome.outcome != "retry" or tries[key] >= self.endpoint.max_attempts:
                self._ledger.traffic.failed += 1
                may_pass = outcome.outcome == "retry"
                answers.append(Answer(call, None, failure=str(outcome), may_pass=may_pass))
            else:
                self._ledger.traffic.retried += 1
        self._close(record, waiting)
        for answer in answers:
            del waiting[answer.call.key]
            give(answer)
        self._check_batch(record, state, answers)

    def _close(self, record: BatchRecord, waiting: Mapping[str, Call]) -> None:
        # On disk before the record says so: a power cut must not lose what is paid.
        self._ledger.journal.sync()
        record.open_keys = [key for key in record.open_keys if key not in waiting]
        self._records.save(record)

    def _check_batch(
        self, record: BatchRecord, state: BatchState, answers: Sequence[Answer]
    ) -> None:
        replied = sum(answer.reply is not None for answer in answers)
        if state.problem is not None:
            what = f"{self.endpoint.model}: batch {record.id}: {state.problem}."
            if replied:
                raise UnansweredError(f"{what} {replied:,} replies are kept. Run again to go on.")
            raise ConfigError(f"{what} Nothing was answered.")
        if replied == 0 and len(answers) >= _REFUSED_BATCH:
            raise ConfigError(
                f"{self.endpoint.model}: batch {record.id}: all of {len(answers):,} calls are "
                f"refused, the first with: {answers[0].failure}"
            )

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                yield
        except TimeoutError:
            raise CallError("no whole answer in time (timeout_s)", outcome="retry") from None

    async def _patiently(self, request: Callable[[], Awaitable[Result]], stop: Stop) -> Result:
        """Repeat a request for as long as it takes: what it is about is paid."""
        attempt = 1
        while True:
            try:
                async with self._in_time():
                    return await request()
            except CallError as error:
                if error.outcome != "retry":
                    raise ConfigError(f"{self.endpoint.model}: {error}") from None
                _log.warning("%s: %s; trying again", self.endpoint.model, error)
                self._ledger.traffic.retried += 1
                await stop.sleep(wait_before_retry_s(attempt, error.retry_after_s))
                attempt += 1


def _id(record: BatchRecord) -> str:
    assert record.id is not None, "a batch that is polled has an id"
    return record.id
