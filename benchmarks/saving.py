"""Saving a checkpoint from data parallel gloo ranks: time, stall and host memory of a rank.

    python benchmarks/saving.py [--ranks 4] [--layers 8] [--rounds 2]

A Llama of random weights in bf16 with AdamW's state, 14 bytes a weight. Rounds alternate; each way
has fresh ranks each time, so that memory that one has freed does not serve another. Extra memory is
the peak of a rank's resident memory during a synchronous save beyond what it had before; the
largest rank counts. Writer processes, which share their rank's pages, are not in it.

- megatron-msm: each rank copies, writes and hashes its own part.
- gathered: the same save with megatron-core's own `fully_reshardable`, written and hashed by the
  first rank of those that have the same; what megatron-msm did before it saved in parts.
- megatron-core: `fully_reshardable` by `dist_checkpointing.save` and its parallel writing, which
  Megatron-LM uses by default; nothing is hashed.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import orjson

WAYS = ("megatron-msm", "gathered", "megatron-core")
_MIB = 2**20


def config_of(layers: int) -> dict[str, Any]:
    """Return a config.json."""
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 16384,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }


def resident_bytes(field: str) -> int:
    """Return VmRSS, or VmHWM, its highest value since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def rank_main(rank: int, num_ranks: int, port: int, way: str, folder: str, layers: int) -> None:
    """Save once synchronously and once beside, and write down what it took."""
    warnings.filterwarnings("ignore")
    os.environ.update(MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    import torch

    from megatron_msm.config.parallel import ParallelConfig
    from megatron_msm.config.runtime import RuntimeConfig
    from megatron_msm.models.build import build_model
    from megatron_msm.models.hf_config import shape_from_hf_config
    from megatron_msm.runtime.device import select_runtime
    from megatron_msm.runtime.optimizer_state import begin_state
    from megatron_msm.runtime.process_groups import RankInfo, initialize, shut_down
    from megatron_msm.train.steps.step import build_optimizer, wrap_data_parallel

    layout = ParallelConfig(data=num_ranks)
    runtime = select_runtime(RuntimeConfig(device="cpu", dtype="bf16"), local_rank=rank)
    ranks = initialize(RankInfo(rank, rank, num_ranks), runtime, layout, seed=1, timeout_min=5)
    shape = shape_from_hf_config(config_of(layers), source="benchmark")
    chunks = build_model(shape, layout, runtime, ranks)
    optimizer = build_optimizer(wrap_data_parallel(chunks, runtime), _optimizer(), runtime)
    begin_state(optimizer)
    save = _save_by_megatron_core if way == "megatron-core" else _save_by_us
    with _gathering() if way == "gathered" else contextlib.nullcontext():
        save(Path(folder) / "first", chunks, optimizer, asynchronous=False)  # imports, caches
        torch.distributed.barrier()
        before = resident_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        started = time.perf_counter()
        save(Path(folder) / "second", chunks, optimizer, asynchronous=False)
        found = {
            "seconds": time.perf_counter() - started,
            "extra": resident_bytes("VmHWM") - before,
        }
        if way != "megatron-core":
            torch.distributed.barrier()
            found["stall"] = save(Path(folder) / "third", chunks, optimizer, asynchronous=True)
    Path(folder, f"{rank}.json").write_bytes(orjson.dumps(found))
    shut_down()


def _optimizer() -> Any:
    from megatron_msm.config.optimization import OptimizerConfig

    return OptimizerConfig(lr=1e-5)


@contextlib.contextmanager
def _gathering() -> Any:
    from megatron_msm.train.checkpoints import checkpoint, saving

    with (
        mock.patch.object(checkpoint, "in_shards", contextlib.nullcontext),
        mock.patch.object(saving, "FullyParallelSaveStrategyWrapper", lambda strategy, _: strategy),
    ):
        yield


def _save_by_us(root: Path, chunks: Any, optimizer: Any, *, asynchronous: bool) -> float:
    """Save, and return the seconds that training would have waited."""
    from megatron_msm.config.checkpoint import CheckpointConfig
    from megatron_msm.formats.checkpoint_folder import CheckpointState
    from megatron_msm.train.checkpoints.saving import CheckpointSaver

    state = CheckpointState(
        iteration=1,
        phase="benchmark",
        phase_complete=False,
        architecture="llama",
        model_sha256="",
        tokenizer_sha256="",
        chat_template_sha256=None,
        lineage=(),
    )
    saver = CheckpointSaver(
        root,
        CheckpointConfig(asynchronous=asynchronous),
        hf_folder=root.parent / "hf",
        run_yaml="{}",
    )
    started = time.perf_counter()
    saver.save(chunks, optimizer, state, wait=False)
    stall = time.perf_counter() - started
    saver.finish()
    return stall


def _save_by_megatron_core(root: Path, chunks: Any, optimizer: Any, *, asynchronous: bool) -> float:
    import torch
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.strategies.fully_parallel import (
        FullyParallelSaveStrategyWrapper,
    )
    from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

    from megatron_msm.train.checkpoints.checkpoint import CONTENT

    assert not asynchronous
    started = time.perf_counter()
    if torch.distributed.get_rank() == 0:
        root.mkdir()
    torch.distributed.barrier()
    state = {"model": chunks[0].sharded_state_dict(metadata=dict(CONTENT))}
    state["optimizer"] = optimizer.sharded_state_dict(dict(state["model"]), metadata=dict(CONTENT))
    dist_checkpointing.save(
        state,
        str(root),
        sharded_strategy=FullyParallelSaveStrategyWrapper(
            TorchDistSaveShardedStrategy("torch_dist", 1), chunks[0].pg_collection.dp_cp
        ),
    )
    return time.perf_counter() - started


def measure(way: str, num_ranks: int, layers: int) -> dict[str, float]:
    """Return seconds, stall and extra bytes of the rank with most, in fresh ranks."""
    from torch.multiprocessing.spawn import spawn

    folder = Path(tempfile.mkdtemp(prefix="saving-"))
    try:
        (folder / "hf").mkdir()
        (folder / "hf" / "config.json").write_bytes(orjson.dumps(config_of(layers)))
        port = 20000 + (os.getpid() + WAYS.index(way)) % 20000
        spawn(rank_main, args=(num_ranks, port, way, str(folder), layers), nprocs=num_ranks)
        rows = [orjson.loads((folder / f"{rank}.json").read_bytes()) for rank in range(num_ranks)]
        found = {key: max(row[key] for row in rows) for key in rows[0]}
        files = (folder / "second").rglob("*.distcp")
        return {**found, "size": sum(path.stat().st_size for path in files)}
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Measure all ways in rounds, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    rounds = [
        {way: measure(way, options.ranks, options.layers) for way in WAYS}
        for _ in range(options.rounds)
    ]
    for way in WAYS:
        found = {key: statistics.median(one[way][key] for one in rounds) for key in rounds[0][way]}
        stall = f"{found['stall']:.2f} s beside training" if "stall" in found else "not measured"
        print(  # noqa: T201
            f"{way}: {found['size'] / _MIB:.0f} MiB in {found['seconds']:.2f} s; stall {stall}; "
            f"{found['extra'] / _MIB:.0f} MiB more of a rank",
            flush=True,
        )
    print(f"load average {os.getloadavg()[0]:.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
