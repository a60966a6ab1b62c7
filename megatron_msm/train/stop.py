"""A run ends in order, with status 75, by SIGTERM, SIGUSR2 or a first Ctrl-C (SIGINT).

    start-up        nothing was trained yet, so the process ends at once
    later           a request; all ranks agree on it between two steps, save that step, and end
    after Ctrl-C    another one of the three ends the process at once, with status 130

Without a Ctrl-C they are one request however often they come, since SLURM and launchers repeat
them. torchrun passes a second Ctrl-C on as SIGTERM. The signals are received by a thread
(`sigwait`), because a Python handler runs only between two instructions of the main thread, and
that one may stand in a collective or a save for minutes. They are blocked in all other threads and
in child processes, which so outlive a signal that SLURM sends to every process of a job.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from megatron_msm.errors import INTERRUPTED_STATUS, PreemptedError

if TYPE_CHECKING:
    import torch

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
_SIGNALS = (*STOP_SIGNALS, signal.SIGINT)
# A second Ctrl-C of a person, and no copy of the first: a terminal sends it to all of a group, and
# a launcher in that group may pass it on.
_AGAIN_AFTER_S = 0.3


def _end_in_start_up(number: int) -> None:
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    _say(f"stopped    by {name} during start-up: nothing was trained yet\n")
    os._exit(INTERRUPTED_STATUS if number == signal.SIGINT else PreemptedError.exit_status)


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(line)
        sys.stderr.flush()


class StopSignal:
    """Receives this process's stop signals from its creation on.

    Args:
        takes_ctrl_c: Whether SIGINT is one of them. If not, it has no effect here: a launcher on
            the same terminal gets it, too, and passes on what it means.
    """

    def __init__(self, *, takes_ctrl_c: bool = True) -> None:
        self._started = time.monotonic()
        self.is_received = False
        """A stop was asked for, here; the other ranks may not know yet."""
        self._act: Callable[[int], None] = _end_in_start_up
        self._end_at_once: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        # Blocked alike in both cases, so that processes started from here live to finish a save.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        received = _SIGNALS if takes_ctrl_c else STOP_SIGNALS
        threading.Thread(
            target=self._receive, args=(received,), name="stop-signal", daemon=True
        ).start()

    def hold(
        self,
        act: Callable[[int], None] = lambda number: None,
        *,
        end_at_once: Callable[[], None] = lambda: os._exit(INTERRUPTED_STATUS),
    ) -> None:
        """End the start-up.

        Args:
            act: Called with each signal from now on, after `is_received` was set.
            end_at_once: Called with each signal after a Ctrl-C.
        """
        with self._lock:
            self._act, self._end_at_once = act, end_at_once

    def is_due(self, after_min: float | None) -> bool:
        """Return whether a stop was asked for, or the process has run for so many minutes."""
        minutes = (time.monotonic() - self._started) / 60
        return self.is_received or (after_min is not None and minutes >= after_min)

    def _receive(self, signals: tuple[signal.Signals, ...]) -> None:
        first_ctrl_c_s: float | None = None
        while True:
            number = signal.sigwait(signals)
            now_s = time.monotonic()
            with self._lock:
                self.is_received = True
                if first_ctrl_c_s is not None:
                    if number != signal.SIGINT or now_s - first_ctrl_c_s > _AGAIN_AFTER_S:
                        self._end_at_once()
                    continue
                self._act(number)
            if number == signal.SIGINT:
                first_ctrl_c_s = now_s
                _say(
                    "\nCtrl-C     the step under way is finished and saved, then the run ends; "
                    "Ctrl-C again ends it at once, without a save\n"
                )


def agree_to_stop(wanted_here: bool, device: "torch.device") -> bool:
    """Return on every rank whether any of them wants to stop; called by all between steps."""
    import torch

    wanted = torch.tensor(int(wanted_here), dtype=torch.int32, device=device)
    # The host waits here, between two steps, for the slowest rank: one that stopped alone would
    # leave the others in a collective. It is one number, so the wait is all that it costs.
    torch.distributed.all_reduce(wanted, op=torch.distributed.ReduceOp.MAX)
    return bool(wanted.item())
