"""How many calls are in flight: as many as the server takes, never more than the user allows.

A server that says "too many" halves the number, once for all the calls that were in flight then,
and nothing is sent for as long as it asked; each answer gives a little back (additive increase,
multiplicative decrease, as TCP does it).
"""

import asyncio
import random
import time

from megatron_msm.llm.stopping import Stop, StopAskedError

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0


class Pacing:
    """Lets calls of one endpoint start.

    Args:
        concurrency: Calls in flight at most.
    """

    def __init__(self, concurrency: int) -> None:
        self._most = float(concurrency)
        self._allowed = float(concurrency)
        self._in_flight = 0
        self._not_before_s = 0.0
        self._halved_s = float("-inf")
        self._changed = asyncio.Condition()

    async def acquire(self, stop: Stop) -> None:
        """Wait for leave to start a call.

        Raises:
            StopAskedError: The run is to stop.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: stop.is_asked or self._has_place())
            if stop.is_asked:
                self._changed.notify_all()
            stop.check()
            self._in_flight += 1
        try:
            while (wait_s := self._not_before_s - time.monotonic()) > 0:
                await stop.sleep(wait_s)
        except StopAskedError:
            await self.release()
            raise

    async def release(self) -> None:
        """Say that a call has ended."""
        async with self._changed:
            self._in_flight -= 1
            self._changed.notify()

    def _has_place(self) -> bool:
        return self._in_flight < max(1, int(self._allowed))

    def on_success(self) -> None:
        """Allow a little more."""
        self._allowed = min(self._most, self._allowed + 1.0 / max(self._allowed, 1.0))

    def on_rate_limit(self, retry_after_s: float | None, *, started_s: float) -> None:
        """Halve what is allowed; the calls wait as long as the server asked.

        Args:
            retry_after_s: How long it asked to wait.
            started_s: When the refused call was sent, on the monotonic clock.
        """
        now_s = time.monotonic()
        if started_s > self._halved_s:
            self._allowed = max(1.0, self._allowed / 2)
            self._halved_s = now_s
        if retry_after_s is not None:
            self._not_before_s = max(self._not_before_s, now_s + retry_after_s)


def wait_before_retry_s(attempt: int, retry_after_s: float | None) -> float:
    """Return the seconds to wait after the given attempt (from 1): doubling, with jitter."""
    if retry_after_s is not None:
        return retry_after_s
    longest: float = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)
