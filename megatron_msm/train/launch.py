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
import time
from pathlib import Path

from megatron_msm.train.rank import LAUNCHER_PID

_POLL_S = 0.2
_GRACE_S = 10.0
_TAIL_LINES = 15


def launch(config_file: Path, *, num_ranks: int, threads: int | None, logs: Path) -> int:
    """Run `num_ranks` ranks of `config_file` to their end.

    Rank 0 writes to this process's terminal, the others to `logs/rank_N.log`.

    Returns:
        0 when every rank ended well, else the status of the first that did not.
    """
    logs.mkdir(parents=True, exist_ok=True)
    ranks = []
    environment = _shared_environment(num_ranks, threads)
    try:
        for rank in range(num_ranks):
            ranks.append(_start(config_file, rank, num_ranks, environment, logs))
        return _watch(ranks, logs)
    finally:
        _stop(ranks)


def _shared_environment(num_ranks: int, threads: int | None) -> dict[str, str]:
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
    }


def _start(
    config_file: Path, rank: int, num_ranks: int, environment: dict[str, str], logs: Path
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "megatron_msm.train.rank", str(config_file)]
    variables = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    if rank == 0:
        return subprocess.Popen(command, env=variables)
    with (logs / f"rank_{rank}.log").open("wb") as log:
        return subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)


def _watch(ranks: list[subprocess.Popen[bytes]], logs: Path) -> int:
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda received, frame: _forward(ranks, received))
    while True:
        statuses = [rank.poll() for rank in ranks]
        failed = [index for index, status in enumerate(statuses) if status]
        if failed:
            status = statuses[failed[0]]
            assert status is not None
            _report(failed[0], status, logs)
            return status if status > 0 else 1
        if all(status == 0 for status in statuses):
            return 0
        time.sleep(_POLL_S)


def _forward(ranks: list[subprocess.Popen[bytes]], number: int) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(number)


def _report(rank: int, status: int, logs: Path) -> None:
    """Say which rank failed and how; rank 0 has written to the terminal itself."""
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    sys.stderr.write(f"rank {rank} ended with {how}; stopping the others\n")
    if rank > 0:
        lines = (logs / f"rank_{rank}.log").read_text(errors="replace").splitlines()
        sys.stderr.write("".join(f"  {line}\n" for line in lines[-_TAIL_LINES:]))


def _stop(ranks: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _GRACE_S
    for rank in ranks:
        if rank.poll() is None:
            rank.terminate()
    for rank in ranks:
        try:
            rank.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()
