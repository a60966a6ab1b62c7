"""Preemption: SIGTERM or SIGUSR2 ends a run in order, with status 75.

    start-up    nothing was trained yet, so the process ends at once
    later       a request; all ranks agree on it between two steps, save that step, and end

The signals are received by a thread (`sigwait`), because a Python handler runs only between two
instructions of the main thread, and that one may stand in a collective or a save for minutes. They
are blocked in all other threads and in child processes, which so outlive a signal that SLURM sends
to every process of a job.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from megatron_msm.errors import PreemptedError

if TYPE_CHECKING:
    import torch

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


def _end_now(number: int) -> None:
    if os.environ.get("RANK", "0") == "0":
        name = signal.Signals(number).name
        sys.stderr.write(f"preempted  by {name} during start-up: nothing was trained yet\n")
        sys.stderr.flush()
    os._exit(PreemptedError.exit_status)


class StopSignal:
    """Receives this process's stop signals from its creation on."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.is_received = False
        """A stop was asked for, here; the other ranks may not know yet."""
        self._act: Callable[[int], None] = _end_now
        self._lock = threading.Lock()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=self._receive, name="stop-signal", daemon=True).start()

    def hold(self, act: Callable[[int], None] = lambda number: None) -> None:
        """End the start-up: from now on a signal sets `is_received` and calls `act`."""
        with self._lock:
            self._act = act

    def is_due(self, after_min: float | None) -> bool:
        """Return whether a stop was asked for, or the process has run for so many minutes."""
        minutes = (time.monotonic() - self._started) / 60
        return self.is_received or (after_min is not None and minutes >= after_min)

    def _receive(self) -> None:
        while True:
            number = signal.sigwait(STOP_SIGNALS)
            with self._lock:
                self.is_received = True
                self._act(number)


def agree_to_stop(wanted_here: bool, device: "torch.device") -> bool:
    """Return on every rank whether any of them wants to stop; called by all between steps."""
    import torch

    wanted = torch.tensor(int(wanted_here), dtype=torch.int32, device=device)
    # The host waits here, between two steps, for the slowest rank: one that stopped alone would
    # leave the others in a collective. It is one number, so the wait is all that it costs.
    torch.distributed.all_reduce(wanted, op=torch.distributed.ReduceOp.MAX)
    return bool(wanted.item())
