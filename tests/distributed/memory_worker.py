"""What a rank does in the tests of memory settings: one loss and its gradients for each."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.memory import MemoryConfig
from megatron_msm.config.parallel import ParallelConfig
from tests.distributed.layout_worker import joined, packs_of_step

PLAIN = MemoryConfig(loss_chunk_tokens=None)
SETTINGS = {
    "plain": PLAIN,
    "chunks": MemoryConfig(loss_chunk_tokens=7),
    "selective": MemoryConfig(
        loss_chunk_tokens=None,
        recompute="selective",
        recompute_modules=("core_attn", "mlp"),
    ),
    "full": MemoryConfig(loss_chunk_tokens=None, recompute="full"),
    "full, two layers": MemoryConfig(loss_chunk_tokens=None, recompute="full", recompute_layers=2),
}
LORA = {"none": None, "lora": LoraConfig(rank=4, alpha=8)}


LAYOUT = ParallelConfig(tensor=2, sequence=True)


def save_gradients(checkpoint: Path, out: Path) -> None:
    """Write loss and gradients of every setting, with and without adapters."""
    with joined(LAYOUT) as (runtime, ranks):
        results = {
            f"{name} {adapters}": _gradients(checkpoint, memory, lora, runtime, ranks)
            for name, memory in SETTINGS.items()
            for adapters, lora in LORA.items()
        }
        torch.save(results, out / f"rank_{ranks.rank}.pt")


def _gradients(
    checkpoint: Path, memory: MemoryConfig, lora: LoraConfig | None, runtime: Any, ranks: Any
) -> dict[str, torch.Tensor]:
    from megatron_msm.data.batch import collate
    from megatron_msm.formats.checkpoint_folder import HF_FOLDER
    from megatron_msm.models.build import build_model
    from megatron_msm.models.hf_config import read_model_shape
    from megatron_msm.models.layers.lora import initialize_adapters
    from megatron_msm.train.checkpoints.checkpoint import load_checkpoint
    from megatron_msm.train.steps.step import forward_step

    shape = read_model_shape(checkpoint / HF_FOLDER)
    (model,) = chunks = build_model(shape, LAYOUT, runtime, ranks, lora, memory)
    load_checkpoint(checkpoint, chunks, None, with_adapters=lora is None)
    if lora is not None:
        initialize_adapters(model, 1)
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):  # zeros would hide everything behind them
                torch.nn.init.constant_(parameter, 0.02)
    pack = packs_of_step(0, np.random.default_rng(7).integers(0, 300, 4096))[0]
    output, loss_of = forward_step(iter([collate([pack], runtime.device)]), model)
    loss = loss_of(output)[0]
    loss.backward()
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {"loss": loss.detach(), **gradients}
