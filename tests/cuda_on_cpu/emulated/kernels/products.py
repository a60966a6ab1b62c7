"""Matrix products."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from tests.cuda_on_cpu.emulated.kernel import kernel
from tests.cuda_on_cpu.emulated.kernels.casting import quantize
from tests.cuda_on_cpu.emulated.kernels.number_formats import dequantized, torch_type


def _factor(tensor: Any, *, is_turned: bool, columnwise: bool) -> torch.Tensor:
    """Return a factor as a matrix, from the form that cuBLAS reads on Hopper."""
    numbers = dequantized(tensor, columnwise=columnwise)
    rows = numbers.reshape(-1, numbers.shape[-1])
    return rows.T if is_turned else rows


@kernel
def generic_gemm(
    A: Any,
    transA: bool,
    B: Any,
    transB: bool,
    D: Any,
    quantizer: Any,
    output_dtype: Any,
    bias: Any,
    bias_type: Any,
    gelu: bool,
    gelu_in: Any,
    grad: bool,
    workspace: Any,
    workspace_size: int,
    accumulate: bool,
    use_split_accumulator: bool,
    comm_overlap: Any = None,
    comm_type: Any = None,
    extra_output: Any = None,
    bulk_overlap: bool = False,
    alpha: float = 1.0,
    beta: float | None = None,
) -> tuple[Any, Any, None, Any]:
    assert comm_overlap is None, "the emulation has no product that overlaps with messages"
    assert not gelu, "the emulation has no product with GELU"
    a = _factor(A, is_turned=transA, columnwise=not transA)
    b = _factor(B, is_turned=transB, columnwise=transB)
    assert b.shape[1] == a.shape[0], f"shapes do not fit: {b.shape} and {a.shape}"
    product = alpha * (b @ a)
    bias_grad = None
    if bias is not None and grad:
        whole = dequantized(B)
        bias_grad = whole.reshape(-1, whole.shape[-1]).sum(0).to(torch_type(bias_type))
    elif bias is not None:
        product = product + bias.float()
    if D is not None:
        return _write(product, D, accumulate=accumulate), bias_grad, None, extra_output
    shape = product.shape if transB else (*tuple(B.size())[:-1], product.shape[-1])
    made = product.to(torch_type(output_dtype)).view(shape)
    return made if quantizer is None else quantize(made, quantizer), bias_grad, None, extra_output


def _write(product: torch.Tensor, out: torch.Tensor, *, accumulate: bool) -> torch.Tensor:
    assert out.numel() == product.numel(), f"{product.shape} into {out.shape}"
    made = product.view(out.shape).to(out.dtype)
    return out.add_(made) if accumulate else out.copy_(made)


@kernel
def te_general_grouped_gemm(
    A: Sequence[Any],
    transa: bool,
    B: Sequence[Any],
    transb: bool,
    D: Any,
    D_type: Any,
    m_splits: Sequence[int],
    bias: Sequence[torch.Tensor],
    bias_type: Any,
    single_output: bool,
    pre_gelu_out: Any,
    grad: bool,
    workspace: Any,
    workspace_size: int,
    accumulate: bool,
    use_split_accumulator: bool,
    math_sm_count: int,
) -> Any:
    outs = D[0].split(list(m_splits)) if single_output else D
    for index, (a, b, out) in enumerate(zip(A, B, outs, strict=True)):
        if not out.numel():
            continue
        if not math.prod(b.size()):  # no token for this expert
            if not accumulate:
                out.zero_()
            continue
        own = bias[index] if bias and bias[index].numel() else None
        settings = (workspace, workspace_size, accumulate, use_split_accumulator)
        gelu = (False, None)
        made = generic_gemm(
            *(a, transa, b, transb, out, None, D_type, own, bias_type, *gelu, grad, *settings)
        )
        if grad and own is not None:
            own.copy_(made[1])
    return bias


@kernel
def get_num_cublas_streams() -> int:
    return 4


@kernel
def get_cublasLt_version() -> int:
    return 130100


@kernel
def get_cudnn_version() -> int:
    return 91800
