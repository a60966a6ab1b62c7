"""Training ranks forked from a process that has done the imports: a start costs tenths of a second.

What `msm train` does after its ranks are started is the same; the start itself is tested elsewhere.
"""

import multiprocessing
import os
import resource
import socket
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "megatron_msm.train.ranks.rank",
        "megatron_msm.train.trainer",
        "torch.utils.tensorboard.writer",
        "pyarrow.parquet",
    ]
)
LOG = "forked_{rank}.log"
"""Where a rank's output goes, in the run's folder."""


def start_ranks(
    folder: Path, *overrides: str, num_ranks: int = 1, max_file_bytes: int | None = None
) -> list[ForkServerProcess]:
    """Start the ranks of `folder`/run.yaml and return at once.

    Args:
        folder: Where run.yaml is.
        overrides: As on the command line.
        num_ranks: How many; the layout has to fit.
        max_file_bytes: No file may grow larger, as if the disk were full.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        (folder, overrides, rank, num_ranks, port, max_file_bytes) for rank in range(num_ranks)
    ]
    ranks = [_CONTEXT.Process(target=_run, args=args) for args in arguments]
    for rank in ranks:
        rank.start()
    return ranks


def train(
    folder: Path, *overrides: str, num_ranks: int = 1, max_file_bytes: int | None = None
) -> int:
    """Run the ranks to their end and return rank 0's status."""
    ranks = start_ranks(folder, *overrides, num_ranks=num_ranks, max_file_bytes=max_file_bytes)
    for rank in ranks:
        rank.join(600)
        assert rank.exitcode is not None, "the rank hangs"
    status = ranks[0].exitcode
    assert status is not None
    return status


def output(folder: Path, rank: int = 0) -> str:
    """Return what a rank has written to its terminal."""
    return (folder / LOG.format(rank=rank)).read_text()


def _run(
    folder: Path,
    overrides: Sequence[str],
    rank: int,
    num_ranks: int,
    port: int,
    max_file_bytes: int | None,
) -> None:
    import torch

    from megatron_msm.config.load import load_config
    from megatron_msm.config.run import RunConfig
    from megatron_msm.train.ranks.rank import run_rank
    from megatron_msm.train.stop import StopSignal

    os.chdir(folder)
    with Path(LOG.format(rank=rank)).open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num_ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    run_rank(load_config(Path("run.yaml"), RunConfig, overrides), StopSignal())
