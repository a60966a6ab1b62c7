"""Ctrl-C and SIGTERM while calls are in flight: the first lets them finish, the second does not."""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopAskedError(Exception):
    """The run is to stop: a call that has not been sent stays unsent."""


class Stop:
    """Whether the run is to stop.

    Args:
        in_flight: Says how many calls are in flight, for the message.
    """

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._in_flight = in_flight
        self._asked = asyncio.Event()

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come, or an error ends the run."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Let nothing new start."""
        self._asked.set()

    def check(self) -> None:
        """Check that nobody asked to stop.

        Raises:
            StopAskedError: Somebody did.
        """
        if self.is_asked:
            raise StopAskedError

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not past a signal.

        Raises:
            StopAskedError: A signal came.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), seconds)
        self.check()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the block runs; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, task)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    def _on_signal(self, task: "asyncio.Task[object]") -> None:
        if self.is_asked:
            task.cancel()
            return
        self.ask()
        _log.warning(
            "stopping: %d calls in flight are being finished and kept. "
            "The same signal again leaves at once, and they will be paid again.",
            self._in_flight(),
        )
