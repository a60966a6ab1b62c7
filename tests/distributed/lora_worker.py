"""What a rank does in the LoRA tests; results go to files that the test compares."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.optimization import OptimizerConfig
from megatron_msm.config.parallel import ParallelConfig
from tests.distributed.layout_worker import (
    NUM_PACKS,
    NUM_STEPS,
    SEQ_LENGTH,
    Rank,
    joined,
    packs_of_step,
)

LORA = LoraConfig(rank=4, alpha=6.0)
RANK_STABILIZED = LoraConfig(rank=4, alpha=6.0, rank_stabilized=True)
OPTIMIZER = OptimizerConfig(lr=1e-2, weight_decay=0.1, clip_grad_norm=0.05)
SEED = 5


@dataclass(frozen=True)
class LoraCase:
    """A run of a few steps on one model."""

    layout: ParallelConfig
    checkpoint: Path
    """Iteration folder of the base, or of a checkpoint with adapters."""
    out: Path
    corpus: npt.NDArray[np.int64]
    has_adapters: bool = False
    lora: LoraConfig = LORA


def train_adapters(cases: list[LoraCase]) -> None:
    """Save each case's adapters before and after some steps, and what the steps showed."""
    for case in cases:
        with joined(case.layout) as (runtime, ranks):
            _train_adapters(case, runtime, ranks)


def _train_adapters(case: LoraCase, runtime: Any, ranks: Any) -> None:
    from megatron_msm.models.sizes.trainable import check_trainable
    from megatron_msm.train.checkpoints.checkpoint import load_checkpoint

    chunks, shape = _build(case, runtime, ranks)
    load_checkpoint(case.checkpoint, chunks, None, with_adapters=case.has_adapters)
    check_trainable(chunks, shape, case.lora, ranks)
    _save(case, chunks, "start")
    steps = _train(case, Rank(chunks, runtime, ranks, case.layout, case.checkpoint))
    _save(case, chunks, "end")
    if ranks.rank == 0:
        (case.out / "steps.json").write_text(json.dumps(steps))


def _build(case: LoraCase, runtime: Any, ranks: Any) -> tuple[Any, Any]:
    from megatron_msm.formats.checkpoint_folder import HF_FOLDER
    from megatron_msm.models.build import build_model
    from megatron_msm.models.hf_config import read_model_shape
    from megatron_msm.models.layers.lora import initialize_adapters

    shape = read_model_shape(case.checkpoint / HF_FOLDER)
    chunks = build_model(shape, case.layout, runtime, ranks, case.lora)
    for chunk in chunks:
        initialize_adapters(chunk, SEED)
    return chunks, shape


def _train(case: LoraCase, rank: Rank) -> list[list[float]]:
    from megatron_msm.train.steps.step import build_optimizer, train_step, wrap_data_parallel

    wrapped = wrap_data_parallel(rank.chunks, rank.runtime)
    optimizer = build_optimizer(wrapped, OPTIMIZER, rank.runtime)
    steps = []
    for step in range(NUM_STEPS):
        before = {name: value.clone() for name, value in _parameters(rank.chunks).items()}
        result = train_step(
            wrapped,
            optimizer,
            rank.micro_batches(packs_of_step(step, case.corpus)),
            num_micro_batches=NUM_PACKS // case.layout.data,
            tokens_per_micro_batch=SEQ_LENGTH,
            lr=OPTIMIZER.lr,
            ranks=rank.ranks,
        )
        _check_what_moved(_parameters(rank.chunks), before, step)
        steps.append([result.loss_nats, result.grad_norm])
    return steps


def _parameters(chunks: list[Any]) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{name}": value
        for index, chunk in enumerate(chunks)
        for name, value in chunk.named_parameters()
    }


def _check_what_moved(
    after: dict[str, torch.Tensor], before: dict[str, torch.Tensor], step: int
) -> None:
    """B starts at zero, so A's first gradient is zero; from the second step on all moves."""
    for name, value in after.items():
        has_moved = not torch.equal(value, before[name])
        is_trainable = name.endswith("lora_b") or (name.endswith("lora_a") and step > 0)
        assert has_moved == is_trainable or (name.endswith("lora_a") and step == 0), (name, step)


def _save(case: LoraCase, chunks: list[Any], name: str) -> None:
    from megatron_msm.formats.checkpoint_folder import HF_FOLDER, read_checkpoint_state
    from megatron_msm.train.checkpoints.adapter import adapter_record
    from megatron_msm.train.checkpoints.saving import save_checkpoint

    state = read_checkpoint_state(case.checkpoint)
    state = state.model_copy(update={"files": {}, "adapter": adapter_record(case.lora)})
    hf_folder = case.checkpoint / HF_FOLDER
    save_checkpoint(case.out / name, chunks, None, state, hf_folder=hf_folder, run_yaml="x: y\n")
