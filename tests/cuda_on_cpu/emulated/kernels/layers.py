"""Norms, rotary positions, and the padding of rows for experts."""

from collections.abc import Sequence
from typing import Any

import torch

from tests.cuda_on_cpu.emulated.extension import Member
from tests.cuda_on_cpu.emulated.kernel import kernel
from tests.cuda_on_cpu.emulated.kernels.casting import quantize
from tests.cuda_on_cpu.emulated.kernels.number_formats import torch_type


@kernel
def rmsnorm_fwd(
    input: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    ln_out: Any,
    quantizer: Any,
    otype: Any,
    sm_margin: int,
    zero_centered_gamma: bool,
) -> tuple[Any, None, torch.Tensor]:
    assert input.dim() == 2, f"rows are expected, found {tuple(input.shape)}"
    x = input.float()
    inverse = torch.rsqrt(x.pow(2).mean(-1) + eps)
    gamma = weight.float() + int(zero_centered_gamma)
    normed = (x * inverse[:, None] * gamma).to(torch_type(otype))
    if quantizer is not None:
        return quantize(normed, quantizer, ln_out), None, inverse
    return (normed if ln_out is None else ln_out.copy_(normed)), None, inverse


@kernel
def rmsnorm_bwd(
    dz: torch.Tensor,
    x: torch.Tensor,
    rsigma: torch.Tensor,
    gamma: torch.Tensor,
    sm_margin: int,
    zero_centered_gamma: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    unit = x.float() * rsigma[:, None]
    scaled = dz.float() * (gamma.float() + int(zero_centered_gamma))
    dx = rsigma[:, None] * (scaled - unit * (scaled * unit).mean(-1, keepdim=True))
    dgamma = (dz.float() * unit).sum(0)
    return dx.to(x.dtype), dgamma.to(gamma.dtype)


def _rotate(
    tensor: torch.Tensor,
    angles: torch.Tensor,
    start_positions: Any,
    form: Member,
    interleaved: bool,
    cu_seqlens: Any,
    cp_size: int,
    cp_rank: int,
) -> torch.Tensor:
    from transformer_engine.pytorch.attention import rope

    name = form.name.removeprefix("NVTE_").lower()
    assert angles.dtype is torch.float32, angles.dtype
    if name == "thd":
        assert cu_seqlens.dtype is torch.int32, cu_seqlens.dtype
        assert int(cu_seqlens[-1]) // cp_size == tensor.shape[0], (cu_seqlens, tensor.shape)
        assert int(cu_seqlens.diff().max()) <= angles.shape[0], "a document has no angles"
    with torch.no_grad():
        turned = rope.apply_rotary_pos_emb(
            tensor,
            angles,
            tensor_format=name,
            start_positions=start_positions,
            interleaved=interleaved,
            fused=False,
            cu_seqlens=cu_seqlens,
            cp_size=cp_size,
            cp_rank=cp_rank,
        )
    return turned.to(tensor.dtype)  # type: ignore[no-any-return]


@kernel
def fused_rope_forward(input: torch.Tensor, freqs: torch.Tensor, *settings: Any) -> torch.Tensor:
    return _rotate(input, freqs, *settings)


@kernel
def fused_rope_backward(
    output_grads: torch.Tensor, freqs: torch.Tensor, *settings: Any
) -> torch.Tensor:
    return _rotate(output_grads, -freqs, *settings)


def _move_rows(
    input: torch.Tensor, output: torch.Tensor, had: Sequence[int], gets: Sequence[int]
) -> None:
    output.zero_()
    for source, target in zip(input.split(list(had)), output.split(list(gets)), strict=True):
        num = min(len(source), len(target))
        target[:num] = source[:num]


@kernel
def fused_multi_row_padding(
    input: torch.Tensor, output: torch.Tensor, rows: Sequence[int], padded: Sequence[int]
) -> None:
    _move_rows(input, output, rows, padded)


@kernel
def fused_multi_row_unpadding(
    input: torch.Tensor, output: torch.Tensor, padded: Sequence[int], rows: Sequence[int]
) -> None:
    _move_rows(input, output, padded, rows)
