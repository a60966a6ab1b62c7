"""What a rank does in the tests of the chunked loss."""

from pathlib import Path
from typing import Any

import torch

from megatron_msm.config.parallel import ParallelConfig
from tests.distributed.layout_worker import joined

NUM_TOKENS, HIDDEN, VOCAB, PADDED = 37, 24, 203, 256


def problem(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the same tensors on every rank; the second half of some labels has extreme logits."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(NUM_TOKENS, HIDDEN, generator=generator)
    hidden[5] *= 40.0  # probabilities far below the smallest float
    weight = torch.randn(PADDED, HIDDEN, generator=generator)
    labels = torch.randint(0, VOCAB, (NUM_TOKENS,), generator=generator)
    labels[:2] = torch.tensor([0, VOCAB - 1])
    return {"hidden": hidden.to(dtype), "weight": weight.to(dtype), "labels": labels}


def save_losses(tensor: int, chunk_sizes: list[int], out: Path) -> None:
    """Write losses and gradients for each chunk size, with this rank's part of the vocabulary."""
    with joined(ParallelConfig(tensor=tensor)) as (runtime, ranks):
        results = {
            f"{chunk} {dtype}": _losses(chunk, dtype, runtime, ranks)
            for chunk in chunk_sizes
            for dtype in (torch.float32, torch.bfloat16)
        }
        results["frozen"] = _losses(10, torch.float32, runtime, ranks, is_frozen=True)
        torch.save(results, out / f"rank_{ranks.rank}.pt")


def _losses(
    chunk: int, dtype: torch.dtype, runtime: Any, ranks: Any, *, is_frozen: bool = False
) -> dict[str, torch.Tensor | None]:
    from megatron.core.tensor_parallel import copy_to_tensor_model_parallel_region

    from megatron_msm.models.layers.output_loss import linear_cross_entropy

    given = {name: part.to(runtime.device) for name, part in problem(dtype).items()}
    group = ranks.groups.tp
    hidden = given["hidden"].requires_grad_()
    weight = given["weight"].chunk(group.size())[group.rank()].clone()
    weight.requires_grad_(not is_frozen)
    losses = linear_cross_entropy(
        copy_to_tensor_model_parallel_region(hidden, group=group),
        weight,
        given["labels"],
        real_vocab_size=VOCAB,
        chunk_tokens=chunk,
        tp_group=group,
    )
    (losses.sum() * 0.5).backward()
    return {"losses": losses.detach(), "hidden": hidden.grad, "weight": weight.grad}
