"""What a rank does in the test of the plan: count the bytes that it really holds."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.models.shape import ModelShape
from tests.distributed.layout_worker import (
    OPTIMIZER,
    SEQ_LENGTH,
    Rank,
    joined,
    layout_name,
    packs_of_step,
)


@dataclass(frozen=True)
class PlanCase:
    """A layout, with adapters or without."""

    layout: ParallelConfig
    lora: LoraConfig | None

    @property
    def name(self) -> str:
        return layout_name(self.layout) + ("-lora" if self.lora else "")


def save_bytes(cases: list[PlanCase], checkpoint: Path, shape: ModelShape, out: Path) -> None:
    """Write the bytes of weights, gradients and optimizer state of every rank."""
    for case in cases:
        with joined(case.layout) as (runtime, ranks):
            counted = _count(case, checkpoint, shape, runtime, ranks)
            (out / f"{case.name}_{ranks.rank}.json").write_text(json.dumps(counted))


def _count(
    case: PlanCase, checkpoint: Path, shape: ModelShape, runtime: Any, ranks: Any
) -> dict[str, float]:
    from megatron_msm.models.build import build_model
    from megatron_msm.models.layers.lora import initialize_adapters
    from megatron_msm.train.checkpoints.checkpoint import load_checkpoint
    from megatron_msm.train.steps.step import build_optimizer, train_step, wrap_data_parallel

    chunks = build_model(shape, case.layout, runtime, ranks, case.lora)
    if case.lora is not None:
        initialize_adapters(chunks[0], 1)
    load_checkpoint(checkpoint, chunks, None, with_adapters=case.lora is None)
    wrapped = wrap_data_parallel(chunks, runtime)
    optimizer = build_optimizer(wrapped, OPTIMIZER, runtime)
    rank = Rank(chunks, runtime, ranks, case.layout, checkpoint)
    packs = packs_of_step(0, np.random.default_rng(7).integers(0, 300, 4096))
    batches = list(rank.micro_batches(packs))

    def step() -> None:
        train_step(
            wrapped,
            optimizer,
            iter(batches),
            num_micro_batches=len(batches),
            tokens_per_micro_batch=SEQ_LENGTH,
            lr=1e-3,
            ranks=ranks,
        )

    kept = _bytes_kept_for_backward(step, chunks[0])
    states = optimizer.optimizer.state.values()
    return {
        "pipeline_rank": ranks.groups.pp.rank(),
        "weights": sum(p.nbytes for p in chunks[0].parameters()),
        "gradients": sum(buffer.grad_data.nbytes for chunk in wrapped for buffer in chunk.buffers),
        "optimizer": sum(v.nbytes for s in states for v in s.values() if torch.is_tensor(v)),
        "activations": kept / len(batches),
    }


def _bytes_kept_for_backward(step: Callable[[], None], model: torch.nn.Module) -> int:
    """Return the bytes of all tensors that autograd keeps in a step, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[tuple[int, int], int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr(), storage.nbytes()] = storage.nbytes()
            alive.append(tensor)  # so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(kept.values())
