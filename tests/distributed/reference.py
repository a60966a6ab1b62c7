"""The same mathematics in plain PyTorch on the Hugging Face model, one document at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from megatron_msm.data.packed_dataset import Pack
from megatron_msm.train.steps.schedule import learning_rate
from tests.distributed.layout_worker import NUM_STEPS, OPTIMIZER, SCHEDULE, packs_of_step


def load_model(folder: Path) -> Any:
    """Load a Hugging Face folder in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits_of_pack(model: Any, pack: Pack) -> torch.Tensor:
    """Return [S, V], each document run on its own."""
    parts = np.split(pack.tokens, np.cumsum(pack.segment_lengths)[:-1])
    return torch.cat([model(torch.from_numpy(part)[None]).logits[0] for part in parts])


def global_loss(model: Any, packs: list[Pack]) -> torch.Tensor:
    """Return the mean cross entropy over all unmasked tokens of all packs."""
    losses = []
    for pack in packs:
        logits_SV = logits_of_pack(model, pack)
        loss_S = torch.nn.functional.cross_entropy(
            logits_SV, torch.from_numpy(pack.labels), reduction="none"
        )
        losses.append(loss_S[torch.from_numpy(pack.loss_mask)])
    return torch.cat(losses).mean()


def train(model: Any, corpus: npt.NDArray[np.int64], *, peak: float) -> list[tuple[float, float]]:
    """Make the steps that the ranks make; return (loss, gradient norm) of each."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=OPTIMIZER.lr,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.eps,
        weight_decay=OPTIMIZER.weight_decay,
    )
    results = []
    for step in range(NUM_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(
                SCHEDULE, peak=peak, step=step, num_steps=NUM_STEPS, tokens_per_step=1
            )
        optimizer.zero_grad()
        loss = global_loss(model, packs_of_step(step, corpus))
        loss.backward()
        assert OPTIMIZER.clip_grad_norm is not None
        # torch's own clipping sums millions of squares in float32 and is off in the fourth digit.
        norm = torch.nn.utils.get_total_norm(
            [p.grad.double() for p in model.parameters() if p.grad is not None]
        )
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), OPTIMIZER.clip_grad_norm, norm)
        optimizer.step()
        results.append((loss.item(), norm.item()))
    return results


def saved_tensors(model: Any, folder: Path, *, gradients: bool = False) -> dict[str, torch.Tensor]:
    """Return the weights, or their gradients, under the names that transformers saves them by.

    Those differ from the names in memory where transformers keeps experts in one tensor.
    """
    from safetensors.torch import load_file

    if gradients:
        for parameter in model.parameters():
            parameter.data = (
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )
    model.save_pretrained(folder)
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return tensors
