"""Kernels of Transformer Engine's ring over context parallel ranks, for packed documents.

Of each document a rank has two pieces, one from its first half and one from its second, so that all
ranks have as much to do under a causal mask.
Source: Transformer Engine 2.20, common/fused_attn/context_parallel.cu.
"""

import itertools
from typing import Any

import torch

from tests.cuda_on_cpu.emulated.kernel import kernel


def _halves(cu_seqlens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of all documents' first halves, and of their second."""
    bounds = cu_seqlens.tolist()
    halves: tuple[list[int], list[int]] = ([], [])
    for begin, end in itertools.pairwise(bounds):
        assert (end - begin) % 2 == 0, f"{end - begin} rows are not two equal pieces"
        middle = (begin + end) // 2
        halves[0].extend(range(begin, middle))
        halves[1].extend(range(middle, end))
    return torch.tensor(halves[0]), torch.tensor(halves[1])


@kernel
def thd_read_half_tensor(tensor: torch.Tensor, cu_seqlens: torch.Tensor, half: int) -> torch.Tensor:
    return tensor.index_select(tensor.dim() - 3, _halves(cu_seqlens)[half])


@kernel
def thd_read_second_half_lse(
    lse: torch.Tensor, cu_seqlens: torch.Tensor, lse_packed: bool, length: int
) -> torch.Tensor:
    assert lse_packed, "the emulation has one layout of log-sum-exps"
    return lse[:, _halves(cu_seqlens)[1]].contiguous()


@kernel
def thd_second_half_lse_correction(
    lse: torch.Tensor, lse_per_step: torch.Tensor, cu_seqlens: torch.Tensor, lse_packed: bool
) -> None:
    assert lse_packed, "the emulation has one layout of log-sum-exps"
    rows = _halves(cu_seqlens)[1]
    lse[:, rows] = torch.logaddexp(lse[:, rows], lse_per_step[:, : len(rows)])


@kernel
def thd_out_correction(
    out: torch.Tensor,
    out_per_step: torch.Tensor,
    lse_before: torch.Tensor,
    lse: torch.Tensor,
    lse_per_step: torch.Tensor,
    cu_seqlens: torch.Tensor,
    only_second_half: bool,
    lse_packed: bool,
) -> None:
    """Join the attention over further keys to that over the keys before."""
    assert lse_packed, "the emulation has one layout of log-sum-exps"
    assert out.dtype is out_per_step.dtype, (out.dtype, out_per_step.dtype)
    rows = _halves(cu_seqlens)[1] if only_second_half else torch.arange(len(out))
    step = out_per_step.reshape(len(rows), *out.shape[1:])
    joined = _weighted(out[rows], lse_before[:, rows] - lse[:, rows])
    joined += _weighted(step, lse_per_step[:, : len(rows)] - lse[:, rows])
    out[rows] = joined.to(out.dtype)


def _weighted(out: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    weighted = out.float() * exponent.exp().T.unsqueeze(-1)
    return torch.where(out == 0, 0.0, weighted)  # rows of padding have no keys


@kernel
def thd_grad_correction(
    grad: torch.Tensor,
    grad_per_step: torch.Tensor,
    cu_seqlens: torch.Tensor,
    first_half: str,
    second_half: str,
) -> None:
    """Put or add a step's gradients into the halves; "none" leaves a half as it is."""
    dim = grad.dim() - 3
    halves = _halves(cu_seqlens)
    has_all = grad_per_step.shape[dim] == grad.shape[dim]
    for what, rows in zip((first_half, second_half), halves, strict=True):
        if what == "none":
            continue
        if what == "zero":
            grad.index_fill_(dim, rows, 0)
            continue
        step = grad_per_step.index_select(dim, rows) if has_all else grad_per_step
        _INTO[what](grad, dim, rows, step.to(grad.dtype))


_INTO: dict[str, Any] = {"copy": torch.Tensor.index_copy_, "add": torch.Tensor.index_add_}


@kernel
def thd_get_partitioned_indices(
    cu_seqlens: torch.Tensor, total_tokens: int, world_size: int, rank: int
) -> torch.Tensor:
    bounds = cu_seqlens.tolist()
    rows: list[int] = []
    for begin, end in itertools.pairwise(bounds):
        length = (end - begin) // (2 * world_size)
        rows.extend(range(begin + rank * length, begin + (rank + 1) * length))
        rows.extend(range(end - (rank + 1) * length, end - rank * length))
    return torch.tensor(rows, dtype=torch.int32)
