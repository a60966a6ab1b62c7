"""An endpoint that is asked call by call: pacing, attempts, and when it is given up."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from megatron_msm.errors import ConfigError
from megatron_msm.llm.call import Answer, Call, CallError, Client, Reply
from megatron_msm.llm.endpoints import OfflineEndpoint, WriterEndpoint
from megatron_msm.llm.ledger import Ledger
from megatron_msm.llm.pacing import Pacing, wait_before_retry_s
from megatron_msm.llm.stopping import Stop

_FAILURES_IN_A_ROW = 32
"""So many calls that fail one after the other end the run: nothing would come of the others."""


class LiveLine:
    """An endpoint in use.

    Args:
        endpoint: Which.
        client: Asks it.
        ledger: Where replies go.
    """

    def __init__(
        self,
        endpoint: WriterEndpoint,
        client: Client,
        ledger: Ledger,
    ) -> None:
        self.endpoint = endpoint
        self._client = client
        self._ledger = ledger
        self._pacing = Pacing(endpoint.concurrency)
        self._failures_in_a_row = 0
        self._replies = 0

    async def ask(self, call: Call, stop: Stop) -> Answer:
        """Ask one call, as often as the endpoint allows.

        Raises:
            BudgetReachedError: A limit of spending is reached.
            ConfigError: The server refuses every call.
            StopAskedError: The run is to stop, and this call is not in flight.
        """
        try:
            reply = await self._attempts(call, stop)
        except CallError as error:
            self._ledger.traffic.failed += 1
            self._failures_in_a_row += 1
            if error.outcome == "fatal" or self._failures_in_a_row >= _FAILURES_IN_A_ROW:
                raise ConfigError(f"{self.endpoint.model}: {error}") from None
            return Answer(call, None, failure=str(error), may_pass=error.outcome == "retry")
        self._failures_in_a_row = 0
        self._replies += 1
        return self._ledger.keep(call, reply, self.endpoint)

    async def close(self) -> None:
        """Give connections back."""
        await self._client.close()

    async def _attempts(self, call: Call, stop: Stop) -> Reply:
        attempt, replies_before = 1, self._replies
        while True:
            try:
                async with self._in_flight(stop):
                    return await self._client.complete(call)
            except CallError as error:
                if error.is_rate_limit and self._replies > replies_before:
                    # A server that answers others is alive, and its quota is not this call's fault.
                    attempt, replies_before = 1, self._replies
                if error.outcome != "retry" or attempt >= self.endpoint.max_attempts:
                    raise
                self._ledger.traffic.retried += 1
                await stop.sleep(wait_before_retry_s(attempt, error.retry_after_s))
                attempt += 1

    @asynccontextmanager
    async def _in_flight(self, stop: Stop) -> AsyncIterator[None]:
        """Count as one of the endpoint's calls in flight, and tell its pacing how it ended."""
        await self._pacing.acquire(stop)
        started_s = time.monotonic()
        try:
            self._ledger.check_budget()
            self._ledger.traffic.in_flight += 1
            try:
                # A server that sends a byte now and then would outlast any time-out between bytes.
                async with asyncio.timeout(self._timeout_s):
                    yield
            except TimeoutError:
                raise CallError(
                    f"no whole answer in {self._timeout_s:g} s (timeout_s)", outcome="retry"
                ) from None
            finally:
                self._ledger.traffic.in_flight -= 1
            self._pacing.on_success()
        except CallError as error:
            if error.is_rate_limit:
                self._pacing.on_rate_limit(error.retry_after_s, started_s=started_s)
            raise
        finally:
            await self._pacing.release()

    @property
    def _timeout_s(self) -> float | None:
        return None if isinstance(self.endpoint, OfflineEndpoint) else self.endpoint.timeout_s
