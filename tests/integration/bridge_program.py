"""Megatron-Bridge in an environment of its own; run by test_megatron_bridge.py.

    PYTHON -m tests.integration.bridge_program write HF_DIR CHECKPOINT RANKS TENSOR EXPERT
    PYTHON -m tests.integration.bridge_program load HF_DIR ITERATION_FOLDER OUT_HF_DIR

Models are Bridge's, with megatron-core's local layers in the place of Transformer Engine's
(benchmarks/conversion_peers.py); checkpoints are written and read by Bridge itself.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

from benchmarks.conversion_peers import build_by_bridge, start_megatron


def write(rank: int, hf: Path, out: Path, size: int, tensor: int, expert: int) -> None:
    """Write a checkpoint, as one of several ranks."""
    from torch._C._distributed_c10d import FileStore

    store = FileStore(f"{out}.store", size)
    spec = start_megatron(rank=rank, store=store, size=size, tensor=tensor, expert=expert)
    bridge, model = build_by_bridge(hf, spec, tensor=tensor, expert=expert)
    bridge.load_hf_weights(model)
    bridge.save_megatron_model(model, str(out))


def load(hf: Path, checkpoint: Path, out: Path) -> None:
    """Load a checkpoint with Bridge's default strictness, and export it."""
    bridge, model = build_by_bridge(hf, start_megatron())
    from megatron.bridge.training.checkpointing import _load_model_weights_from_checkpoint

    _load_model_weights_from_checkpoint(str(checkpoint), model)
    bridge.save_hf_pretrained(model, str(out))


def start_ranks(size: int) -> int:
    """Run this program once a rank; return the worst exit status."""
    ranks = []
    for rank in range(size):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
        environment = {**os.environ, **{name: str(value) for name, value in names.items()}}
        command = [sys.executable, "-m", "tests.integration.bridge_program", *sys.argv[1:]]
        ranks.append(subprocess.Popen(command, env=environment))
    return max(abs(rank.wait()) for rank in ranks)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    command, hf, checkpoint, *rest = sys.argv[1:]
    if command == "load":
        load(Path(hf), Path(checkpoint), Path(rest[0]))
    elif "RANK" not in os.environ:
        sys.exit(start_ranks(int(rest[0])))
    else:
        write(int(os.environ["RANK"]), Path(hf), Path(checkpoint), *map(int, rest))
