"""How many calls are in flight: as many as the server takes, never more than the user allows.

A server that says "too many" halves the number and every call waits as long as it asked; each
answer gives a little back (additive increase, multiplicative decrease, as TCP does it).
"""

import asyncio
import random
import time

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
        self._changed = asyncio.Condition()

    async def acquire(self) -> None:
        """Wait for leave to start a call."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._in_flight < max(1, int(self._allowed)))
            self._in_flight += 1
        while (wait_s := self._not_before_s - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)

    async def release(self) -> None:
        """Say that a call has ended."""
        async with self._changed:
            self._in_flight -= 1
            self._changed.notify()

    def on_success(self) -> None:
        """Allow a little more."""
        self._allowed = min(self._most, self._allowed + 1.0 / max(self._allowed, 1.0))

    def on_rate_limit(self, retry_after_s: float | None) -> None:
        """Halve what is allowed; the calls wait as long as the server asked."""
        self._allowed = max(1.0, self._allowed / 2)
        if retry_after_s is not None:
            self._not_before_s = max(self._not_before_s, time.monotonic() + retry_after_s)


def wait_before_retry_s(attempt: int, retry_after_s: float | None) -> float:
    """Return the seconds to wait after the given attempt (from 1): doubling, with jitter."""
    if retry_after_s is not None:
        return retry_after_s
    longest: float = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)
