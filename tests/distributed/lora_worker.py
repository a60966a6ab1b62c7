"""What a rank does in the LoRA tests; results go to files that the test compares."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.optimization import OptimizerConfig
from tests.distributed.layout_worker import (
    NUM_PACKS,
    NUM_STEPS,
    SEQ_LENGTH,
    Layout,
    join,
    packs_of_step,
)

LORA = LoraConfig(rank=4, alpha=6.0)
OPTIMIZER = OptimizerConfig(lr=1e-2, weight_decay=0.1, clip_grad_norm=0.05)
SEED = 5


@dataclass(frozen=True)
class LoraCase:
    """A run of a few steps on one model."""

    checkpoint: Path
    """Iteration folder of the base, or of a checkpoint with adapters."""
    out: Path
    corpus: npt.NDArray[np.int64]
    has_adapters: bool = False


def train_adapters(layout: Layout, case: LoraCase) -> None:
    """Save the adapters before and after some steps, and what the steps showed."""
    from megatron_msm.models.trainable import check_trainable
    from megatron_msm.runtime import process_groups
    from megatron_msm.train.checkpoint import load_checkpoint

    runtime, ranks = join(layout)
    model, shape = _build(layout, case, runtime, ranks)
    load_checkpoint(case.checkpoint, model, None, with_adapters=case.has_adapters)
    check_trainable(model, shape, LORA, ranks)
    _save(case, model, "start")
    steps = _train(layout, case, model, runtime, ranks)
    _save(case, model, "end")
    if ranks.rank == 0:
        (case.out / "steps.json").write_text(json.dumps(steps))
    process_groups.shut_down()


def _build(layout: Layout, case: LoraCase, runtime: Any, ranks: Any) -> tuple[Any, Any]:
    from megatron_msm.formats.checkpoint_folder import HF_FOLDER
    from megatron_msm.models.architecture import read_model_shape
    from megatron_msm.models.build import build_model
    from megatron_msm.models.lora import initialize_adapters

    shape = read_model_shape(case.checkpoint / HF_FOLDER)
    model = build_model(shape, layout.config, runtime, ranks, LORA)
    initialize_adapters(model, SEED)
    return model, shape


def _train(
    layout: Layout, case: LoraCase, model: Any, runtime: Any, ranks: Any
) -> list[list[float]]:
    from megatron_msm.train.step import build_optimizer, train_step, wrap_data_parallel

    wrapped = wrap_data_parallel(model, runtime, ranks)
    optimizer = build_optimizer(wrapped, OPTIMIZER, runtime)
    steps = []
    for step in range(NUM_STEPS):
        before = {name: value.clone() for name, value in model.named_parameters()}
        result = train_step(
            wrapped,
            optimizer,
            _micro_batches(layout, case, step, runtime, ranks),
            num_microbatches=NUM_PACKS // layout.data,
            tokens_per_micro_batch=SEQ_LENGTH,
            lr=OPTIMIZER.lr,
            ranks=ranks,
        )
        _check_what_moved(model, before, step)
        steps.append([result.loss_nats, result.grad_norm])
    return steps


def _micro_batches(
    layout: Layout, case: LoraCase, step: int, runtime: Any, ranks: Any
) -> Iterator[Any]:
    from megatron_msm.data.batch import collate

    for pack in packs_of_step(step, case.corpus)[ranks.data_rank :: layout.data]:
        yield collate([pack], runtime.device)


def _check_what_moved(model: Any, before: dict[str, torch.Tensor], step: int) -> None:
    """B starts at zero, so A's first gradient is zero; from the second step on all moves."""
    for name, value in model.named_parameters():
        has_moved = not torch.equal(value, before[name])
        is_trainable = name.endswith("lora_b") or (name.endswith("lora_a") and step > 0)
        assert has_moved == is_trainable or (name.endswith("lora_a") and step == 0), (name, step)


def _save(case: LoraCase, model: Any, name: str) -> None:
    from megatron_msm.formats.checkpoint_folder import HF_FOLDER, read_checkpoint_state
    from megatron_msm.train.adapter import adapter_record
    from megatron_msm.train.checkpoint import save_checkpoint

    state = read_checkpoint_state(case.checkpoint)
    state = state.model_copy(update={"files": {}, "adapter": adapter_record(LORA)})
    hf_folder = case.checkpoint / HF_FOLDER
    save_checkpoint(case.out / name, model, None, state, hf_folder=hf_folder, run_yaml="x: y\n")
