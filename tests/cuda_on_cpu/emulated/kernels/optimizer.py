"""Kernels over lists of tensors: norm, scale and AdamW."""

from typing import Any

import torch

from tests.cuda_on_cpu.emulated.kernel import kernel


@kernel
def multi_tensor_l2norm(
    chunk_size: int, noop: torch.Tensor, lists: Any, per_tensor: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    norms = [torch.linalg.vector_norm(tensor.double()) for tensor in lists[0]]
    if not norms:
        return torch.zeros(1), torch.zeros(0)
    of_each = torch.stack(norms)
    return of_each.norm().float().reshape(1), of_each.float() if per_tensor else torch.zeros(0)


@kernel
def multi_tensor_scale(chunk_size: int, noop: torch.Tensor, lists: Any, scale: float) -> None:
    for source, target in zip(*lists, strict=True):
        target.copy_(source.float() * float(scale))
        if not target.isfinite().all():
            noop.fill_(1)


@kernel
def multi_tensor_adam(
    chunk_size: int,
    noop: torch.Tensor,
    lists: Any,
    lr: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: int,
    mode: int,
    bias_correction: int,
    weight_decay: float,
) -> None:
    assert mode == 1, f"mode {mode}: the emulation has AdamW alone"
    if noop.numel() and int(noop):
        return
    correction = [1 - beta**step if bias_correction else 1.0 for beta in (beta1, beta2)]
    grads, weights, means, squares, *main = lists
    for grad, weight, mean, square, source in zip(
        grads, weights, means, squares, main[0] if main else weights, strict=True
    ):
        mean.mul_(beta1).add_(grad.float(), alpha=1 - beta1)
        square.mul_(beta2).addcmul_(grad.float(), grad.float(), value=1 - beta2)
        size = (square / correction[1]).sqrt() + epsilon
        change = mean / correction[0] / size + weight_decay * source.float()
        source.copy_(source.float() - lr * change)
        if main:
            weight.copy_(source)
