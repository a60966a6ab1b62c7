"""Runs a server until standard input ends: `python -m evals.models.server_guard SECONDS COMMAND`.

Whoever holds the other end of the pipe may be killed by anything: the pipe ends with it, and the
server's whole process group is ended then. A server left behind would keep the GPU. SECONDS are
those between the signal to end and the one that cannot be refused.

SLURM signals every process of a job, this one too, which must outlive the server.
"""

import os
import signal
import subprocess
import sys
import threading
import time

_GONE_WITHIN_S = 5
"""Processes that are dead and that nobody collects are waited for no longer."""


_WITHOUT_MEANING = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals to all of a job: whoever holds the pipe ends by them or goes on, and the pipe tells."""


def main(grace_s: float, command: list[str]) -> int:
    """Run the command; return its status, or 0 where it was ended from here."""
    for number in _WITHOUT_MEANING:
        # A function, since the server would inherit a signal that is ignored.
        signal.signal(number, lambda number, frame: None)
    # A session of its own: the terminal's Ctrl-C is not meant for it, and its group is its own.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as server:
        asked_to_end = threading.Event()
        arguments = (server, grace_s, asked_to_end)
        threading.Thread(target=_end_with_input, args=arguments, daemon=True).start()
        status = server.wait()
        _end_group(server.pid)
    return 0 if asked_to_end.is_set() else status


def _end_with_input(
    server: "subprocess.Popen[bytes]", grace_s: float, asked_to_end: threading.Event
) -> None:
    while os.read(0, 1024):
        pass
    asked_to_end.set()
    _signal_group(server.pid, signal.SIGTERM)
    try:
        server.wait(grace_s)
    except subprocess.TimeoutExpired:
        _signal_group(server.pid, signal.SIGKILL)


def _end_group(group: int) -> None:
    """End what the server started and left; return when it is gone, or a few seconds later."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    while _signal_group(group, signal.SIGKILL) and time.monotonic() < deadline:
        time.sleep(0.02)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal; return whether anybody was there."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    status = main(float(sys.argv[1]), sys.argv[2:])
    sys.exit(status if status >= 0 else 128 - status)
