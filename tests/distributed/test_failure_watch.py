"""When one rank fails, the others end within seconds, also from the midst of a hang."""

import json
import os
import socket
import time
from pathlib import Path

import torch.multiprocessing


def hang_or_fail(rank: int, port: int, out: Path) -> None:
    """Rank 1 fails; rank 0 hangs, as in a collective that waits for its time-out."""
    import torch.distributed

    from megatron_msm.train.ranks.failure_watch import FailureWatch

    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2"
    )
    torch.distributed.init_process_group("gloo")
    os.dup2(os.open(out / f"{rank}.log", os.O_WRONLY | os.O_CREAT), 2)
    with FailureWatch(out, rank):
        if rank == 1:
            raise RuntimeError("cosmic ray")
        time.sleep(120)


def test_a_hanging_rank_ends_and_names_the_one_that_failed(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    ranks = [context.Process(target=hang_or_fail, args=(rank, port, tmp_path)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    ranks[1].join(60)
    failed = time.monotonic()
    ranks[0].join(60)
    assert time.monotonic() - failed < 15
    assert [rank.exitcode for rank in ranks] == [1, 1]
    said = (tmp_path / "0.log").read_text()
    assert f"rank 0 ends because rank 1 on {socket.gethostname()} failed: RuntimeError" in said
    record = json.loads((tmp_path / "failures" / "rank_1.json").read_text())
    assert record["error"] == "RuntimeError: cosmic ray"
    assert "in hang_or_fail" in record["traceback"]
