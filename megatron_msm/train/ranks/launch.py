"""Start the ranks of a run on this machine, watch them, and take all down when one fails.

torchrun does the same for a cluster and works here too (`msm train` joins it when RANK is set). Its
agent answers signals and exit statuses in its own way, though: a preemption signal kills the
workers before they can save, and a status such as 2 or 75 comes back as 1. So the local case is
written here.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from megatron_msm.errors import INTERRUPTED_STATUS, PreemptedError
from megatron_msm.own_packages import python_module
from megatron_msm.train.ranks.failure_file import failure_file
from megatron_msm.train.ranks.rank import LAUNCHER_PID
from megatron_msm.train.ranks.shared_packings import PACKINGS_FOLDER
from megatron_msm.train.stop import StopSignal

_POLL_S = 0.1
# After one rank failed the others see its connections close and say what they know.
_FAILURE_GRACE_S = 3.0
# After one rank ended because of a stop signal the others are about to.
_STOP_GRACE_S = 60.0
_TAIL_LINES = 15


def launch(
    config_file: Path,
    *,
    num_ranks: int,
    threads: int | None,
    logs: Path,
    packings: Path,
    stop: StopSignal,
) -> int:
    """Run `num_ranks` ranks of `config_file` to their end.

    Rank 0 writes to this process's terminal, the others to `logs/rank_N.log`. Stop signals are
    passed on to the ranks.

    Args:
        config_file: The resolved run file.
        num_ranks: How many.
        threads: CPU threads of a rank; None divides the cores.
        logs: Folder of the ranks' output.
        packings: Folder with the run's packings.
        stop: This process's stop signals.

    Returns:
        0 when every rank ended well, 75 when they were stopped, 130 when a second Ctrl-C ended
        them, else the status of the rank that failed.
    """
    logs.mkdir(parents=True, exist_ok=True)
    ranks: list[subprocess.Popen[bytes]] = []
    environment = _shared_environment(num_ranks, threads, packings)
    try:
        for rank in range(num_ranks):
            ranks.append(_start(config_file, rank, num_ranks, environment, logs))
        must_end = threading.Event()
        stop.hold(lambda number: _pass_on(ranks, number), end_at_once=must_end.set)
        return _watch(ranks, logs, must_end)
    finally:
        _kill(ranks)


def _shared_environment(num_ranks: int, threads: int | None, packings: Path) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # More threads than cores make a step several times slower (measured: 5x).
    per_rank = threads or max((os.cpu_count() or 1) // num_ranks, 1)
    return {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(num_ranks),
        "OMP_NUM_THREADS": str(per_rank),
        LAUNCHER_PID: str(os.getpid()),
        PACKINGS_FOLDER: str(packings),
    }


def _start(
    config_file: Path, rank: int, num_ranks: int, environment: dict[str, str], logs: Path
) -> subprocess.Popen[bytes]:
    command = python_module("megatron_msm.train.ranks.rank", str(config_file))
    variables = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    if rank == 0:
        return subprocess.Popen(command, env=variables)
    with (logs / f"rank_{rank}.log").open("wb") as log:
        return subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)


def _watch(ranks: list[subprocess.Popen[bytes]], logs: Path, must_end: threading.Event) -> int:
    while not must_end.wait(_POLL_S):
        statuses = [rank.poll() for rank in ranks]
        if PreemptedError.exit_status in statuses:
            # Also when the signal reached only one rank, before they could agree.
            _pass_on(ranks, signal.SIGTERM)
            _wait(ranks, _STOP_GRACE_S, must_end)
            return PreemptedError.exit_status
        failed = [index for index, status in enumerate(statuses) if status]
        if failed:
            first = _cause(failed, statuses, logs.parent)
            status = statuses[first]
            assert status is not None
            _report(first, status, logs)
            _wait(ranks, _FAILURE_GRACE_S, must_end)
            return status if status > 0 else 1
        if all(status == 0 for status in statuses):
            return 0
    sys.stderr.write("stopped    at once; the same command goes on after the newest checkpoint\n")
    return INTERRUPTED_STATUS


def _cause(failed: list[int], statuses: list[int | None], out: Path) -> int:
    """Return the rank that failed of itself; others fail because it is gone."""

    def order(rank: int) -> tuple[bool, bool]:
        was_killed = (statuses[rank] or 0) < 0
        return not was_killed, not failure_file(out, rank).exists()

    return min(failed, key=order)


def _pass_on(ranks: list[subprocess.Popen[bytes]], number: int) -> None:
    """Send the ranks a stop signal; a Ctrl-C at the terminal has reached them, without effect."""
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(signal.SIGTERM if number == signal.SIGINT else number)


def _report(rank: int, status: int, logs: Path) -> None:
    """Say which rank failed and how; rank 0 has written to the terminal itself."""
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    host = socket.gethostname()
    sys.stderr.write(f"rank {rank} on {host} ended with {how}; stopping the others\n")
    if rank > 0:
        lines = (logs / f"rank_{rank}.log").read_text(errors="replace").splitlines()
        sys.stderr.write("".join(f"  {line}\n" for line in lines[-_TAIL_LINES:]))


def _wait(ranks: list[subprocess.Popen[bytes]], seconds: float, must_end: threading.Event) -> None:
    deadline = time.monotonic() + seconds
    while any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
        if must_end.wait(_POLL_S):
            return


def _kill(ranks: list[subprocess.Popen[bytes]]) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
        rank.wait()
