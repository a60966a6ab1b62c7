"""A save is proven: what does not fit together is found before, what comes back changed after."""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.convert.importing import import_hf
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import HF_FOLDER, iteration_folder
from tests.distributed.layout_worker import OPTIMIZER, Case, Rank, join, load, train_steps
from tests.distributed.ranks import run_on_ranks
from tests.tiny import write_tiny_llama

NORM = "decoder.final_layernorm.weight"


def prove_and_break(folder: Path) -> None:
    """Train under TP 2, prove a save, then break one thing after the other on rank 1."""
    from megatron_msm.runtime.optimizer_state import state_shards
    from megatron_msm.train.checkpoints import proof
    from megatron_msm.train.checkpoints.proof import prove_saved, prove_state
    from megatron_msm.train.steps.step import build_optimizer, wrap_data_parallel

    layout = ParallelConfig(tensor=2)
    runtime, ranks = join(layout)
    rank = load(layout, iteration_folder(folder / "base", 0), runtime, ranks)
    wrapped = wrap_data_parallel(rank.chunks, runtime)
    optimizer = build_optimizer(wrapped, OPTIMIZER, runtime)
    corpus = np.random.default_rng(3).integers(0, 300, 4096)
    train_steps(rank, wrapped, optimizer, Case(layout, folder, folder, corpus, 1e-3), range(2))
    prove_state(rank.chunks, optimizer, ranks)
    saved = save(rank, optimizer, folder / "out")
    prove_saved(saved, rank.chunks, optimizer)
    prove_state(rank.chunks, optimizer, ranks)
    weights = dict(rank.chunks[0].named_parameters())
    state = {id(shard.weight): shard.tensors for shard in state_shards(optimizer)}

    def change(tensor: torch.Tensor) -> None:
        if ranks.rank == 1:
            with torch.no_grad():
                tensor.view(-1)[7] += 1e-6

    change(state[id(weights[NORM])]["exp_avg_sq"])
    expect(f"{NORM} exp_avg_sq (rank 0)", prove_state, rank.chunks, optimizer, ranks)
    # Loading puts it right again, and says that it was not what the files hold.
    expect(f"{NORM} exp_avg_sq (rank 1)", prove_saved, saved, rank.chunks, optimizer)
    prove_state(rank.chunks, optimizer, ranks)
    projection = "decoder.layers.1.mlp.linear_fc2.weight"
    change(state[id(weights[projection])]["exp_avg"])
    expect(f"{projection} exp_avg (rank 1)", prove_saved, saved, rank.chunks, optimizer)
    for group in optimizer.param_groups:
        group["step"] += ranks.rank
    expect("optimizer steps (rank 1)", prove_saved, saved, rank.chunks, optimizer)
    change(weights[projection])
    expect(f"{projection} weight (rank 1)", prove_saved, saved, rank.chunks, None)
    prove_saved(saved, rank.chunks, optimizer)
    # A load that leaves everything out must not pass because what was saved is still there.
    with mock.patch.object(proof, "load_checkpoint"):
        expect("are not those that were saved", prove_saved, saved, rank.chunks, optimizer)


def expect(said: str, prove: Any, *arguments: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        prove(*arguments)
    assert said in str(caught.value), str(caught.value)


def save(rank: Rank, optimizer: Any, out: Path) -> Path:
    from megatron_msm.formats.checkpoint_folder import read_checkpoint_state
    from megatron_msm.train.checkpoints.saving import save_checkpoint

    state = read_checkpoint_state(rank.checkpoint)
    hf_folder = rank.checkpoint / HF_FOLDER
    save_checkpoint(out, rank.chunks, optimizer, state, hf_folder=hf_folder, run_yaml="{}")
    return iteration_folder(out, state.iteration)


def save_with_several_buckets(folder: Path) -> None:
    """Save with the buckets that a GPU would have, as we do and as megatron-core itself does."""
    from megatron.core.distributed import DistributedDataParallelConfig

    from megatron_msm.runtime import process_groups
    from megatron_msm.runtime.device import select_runtime
    from megatron_msm.train.checkpoints import checkpoint
    from megatron_msm.train.checkpoints.proof import prove_saved, prove_state
    from megatron_msm.train.steps import step

    runtime = select_runtime(RuntimeConfig(device="cpu", dtype="bf16"), local_rank=0)
    info = process_groups.rank_info_from_environment()
    layout = ParallelConfig()
    ranks = process_groups.initialize(info, runtime, layout, seed=1, timeout_min=5)
    rank = load(layout, iteration_folder(folder / "base", 0), runtime, ranks)
    several = partial(DistributedDataParallelConfig, bucket_size=9000)
    with mock.patch.object(
        step,
        "DistributedDataParallelConfig",
        lambda **settings: several(**{**settings, "overlap_grad_reduce": True}),
    ):
        wrapped = step.wrap_data_parallel(rank.chunks, runtime)
    assert len(wrapped[0].buffers[0].buckets) > 3
    optimizer: Any = step.build_optimizer(wrapped, OPTIMIZER, runtime)
    (part,) = optimizer.chained_optimizers
    part.init_state_fn(part.optimizer, part.config)  # moments, as after a step
    prove_state(rank.chunks, optimizer, ranks)
    prove_saved(save(rank, optimizer, folder / "out"), rank.chunks, optimizer)
    prove_state(rank.chunks, optimizer, ranks)
    with mock.patch.object(checkpoint, "in_shards", contextlib.nullcontext):
        saved = save(rank, optimizer, folder / "theirs")
    expect(" param (rank 0)", prove_saved, saved, rank.chunks, optimizer)
    expect("main weights, rounded", prove_state, rank.chunks, optimizer, ranks)


def test_what_is_broken_is_found_and_named(tmp_path: Path) -> None:
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    import_hf(write_tiny_llama(tmp_path / "hf", **heads), tmp_path / "base")
    run_on_ranks(prove_and_break, 2, tmp_path)


def test_buckets_are_saved_right_and_what_megatron_core_saves_wrongly_is_found(
    tmp_path: Path,
) -> None:
    import_hf(write_tiny_llama(tmp_path / "hf", dtype="bfloat16"), tmp_path / "base")
    run_on_ranks(save_with_several_buckets, 1, tmp_path)
