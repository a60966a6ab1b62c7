"""FP8 in Transformer Engine's three formats: one scale for a tensor, for blocks of 128, of 32.

A quantized tensor may hold its numbers twice: as they are (rowwise), and for products along the
other dimension (columnwise). One scale: the transpose. Blocks of 128: the transpose, scaled anew.
Blocks of 32: not transposed, scaled along columns.
"""

from typing import Any

import torch

from tests.cuda_on_cpu.emulated.extension import DType

TYPES = {
    DType.kByte: torch.uint8,
    DType.kInt32: torch.int32,
    DType.kFloat32: torch.float32,
    DType.kFloat16: torch.float16,
    DType.kBFloat16: torch.bfloat16,
    DType.kFloat8E4M3: torch.float8_e4m3fn,
    DType.kFloat8E5M2: torch.float8_e5m2,
}
BLOCK = 128
MX_BLOCK = 32


def torch_type(kind: Any) -> torch.dtype:
    """Return torch's name of one of Transformer Engine's types."""
    return TYPES[DType(int(kind))]


def is_quantized(tensor: Any) -> bool:
    """Return whether a tensor is one of Transformer Engine's, with or without torch's interface."""
    from transformer_engine.pytorch.quantized_tensor import QuantizedTensorStorage

    return isinstance(tensor, QuantizedTensorStorage)


def encode(x: torch.Tensor, fp8: torch.dtype) -> torch.Tensor:
    """Return the bytes of scaled numbers; what is out of range becomes the largest."""
    largest = torch.finfo(fp8).max
    return x.clamp(-largest, largest).to(fp8).view(torch.uint8)


def scale_of(
    amax: torch.Tensor, fp8: torch.dtype, *, epsilon: float, is_power_of_2: bool
) -> torch.Tensor:
    """Return what numbers up to `amax` are multiplied by.

    Source: common/recipe/recipe_common.cuh, `compute_scale_from_amax`.
    """
    amax = amax.float().clamp(min=epsilon)
    scale = torch.finfo(fp8).max / amax
    scale = torch.where(torch.isinf(scale), torch.finfo(torch.float32).max, scale)
    if is_power_of_2:
        scale = torch.exp2(torch.frexp(scale).exponent.float() - 1)
    return torch.where((amax == 0) | torch.isinf(amax), 1.0, scale)


def quantize_into(x: torch.Tensor, quantizer: Any, out: Any) -> None:
    """Write numbers into a quantized tensor, in each of the forms that it has."""
    kind = type(quantizer).__name__
    fp8 = torch_type(quantizer.dtype)
    rows = x.detach().float().reshape(-1, x.shape[-1]) if x.dim() > 1 else x.detach().float()
    if kind in ("Float8Quantizer", "Float8CurrentScalingQuantizer"):
        _with_one_scale(rows, _one_scale(rows, quantizer, fp8), out, fp8)
    elif kind == "Float8BlockQuantizer":
        _in_blocks(rows, quantizer, out._rowwise_data, out._rowwise_scale_inv, fp8)
        _in_blocks(rows.T, quantizer, out._columnwise_data, out._columnwise_scale_inv, fp8)
    elif kind == "MXFP8Quantizer":
        _in_mx_blocks(rows, out._rowwise_data, out._rowwise_scale_inv, fp8, dim=1)
        _in_mx_blocks(rows, out._columnwise_data, out._columnwise_scale_inv, fp8, dim=0)
    else:
        raise NotImplementedError(f"the emulation has no {kind}")


def _one_scale(rows: torch.Tensor, quantizer: Any, fp8: torch.dtype) -> torch.Tensor:
    amax = rows.abs().max().reshape(1) if rows.numel() else torch.zeros(1)
    if type(quantizer).__name__ == "Float8Quantizer":  # the scale of past steps
        if quantizer.amax.numel():
            seen = quantizer.amax.view(-1)[:1]
            seen.copy_(torch.maximum(seen, amax))
        scale: torch.Tensor = quantizer.scale.detach().float().reshape(1).clone()
        return scale
    if quantizer.with_amax_reduction:
        torch.distributed.all_reduce(
            amax, op=torch.distributed.ReduceOp.MAX, group=quantizer.amax_reduction_group
        )
    return scale_of(
        amax,
        fp8,
        epsilon=quantizer.amax_epsilon,
        is_power_of_2=quantizer.force_pow_2_scales,
    )


def _with_one_scale(rows: torch.Tensor, scale: torch.Tensor, out: Any, fp8: torch.dtype) -> None:
    data = encode(rows * scale, fp8)
    out._scale_inv.copy_((1 / scale).view(out._scale_inv.shape))
    if out._data is not None:
        out._data.copy_(data.view(out._data.shape))
    if out._transpose is not None:
        out._transpose.copy_(data.T.reshape(out._transpose.shape))
        out._transpose_invalid = False


def spread(of_blocks: torch.Tensor, block: tuple[int, int], shape: Any) -> torch.Tensor:
    """Give each element of a matrix the number of its block."""
    whole = of_blocks.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return whole[: shape[0], : shape[1]]


def amax_of_blocks(rows: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """Return the largest size of a number in each block of a matrix."""
    height, width = (-(-size // part) for size, part in zip(rows.shape, block, strict=True))
    whole = torch.zeros(height * block[0], width * block[1])
    whole[: rows.shape[0], : rows.shape[1]] = rows.abs()
    return whole.view(height, block[0], width, block[1]).amax((1, 3))


def _in_blocks(
    rows: torch.Tensor, quantizer: Any, data: Any, scale_inv: Any, fp8: torch.dtype
) -> None:
    if data is None:
        return
    is_square = quantizer.block_scaling_dim == 2
    block = (BLOCK if is_square else 1, BLOCK)
    scale = scale_of(
        amax_of_blocks(rows, block),
        fp8,
        epsilon=quantizer.amax_epsilon,
        is_power_of_2=quantizer.force_pow_2_scales,
    )
    data.copy_(encode(rows * spread(scale, block, rows.shape), fp8).reshape(data.shape))
    kept = 1 / scale if is_square else (1 / scale).T  # padded to a multiple of 4
    assert scale_inv.shape[0] == kept.shape[0], (scale_inv.shape, kept.shape)
    scale_inv.zero_()[:, : kept.shape[1]] = kept


def mx_exponent(amax: torch.Tensor, fp8: torch.dtype) -> torch.Tensor:
    """Return the biased power of two that blocks of 32 are divided by, uint8.

    Source: common/util/ptx.cuh, `float_to_e8m0`, which rounds up.
    """
    parts = torch.frexp(amax.float() / torch.finfo(fp8).max)
    power = parts.exponent - (parts.mantissa == 0.5).int()
    return torch.where(amax == 0, 0, (power + 127).clamp(0, 254)).to(torch.uint8)


def mx_factor(exponent: torch.Tensor) -> torch.Tensor:
    """Return what bytes with an exponent are multiplied by."""
    return torch.exp2(exponent.float() - 127)


def _in_mx_blocks(
    rows: torch.Tensor, data: Any, scale_inv: Any, fp8: torch.dtype, *, dim: int
) -> None:
    if data is None:
        return
    block = (1, MX_BLOCK) if dim == 1 else (MX_BLOCK, 1)
    exponent = mx_exponent(amax_of_blocks(rows, block), fp8)
    factor = spread(mx_factor(exponent), block, rows.shape)
    data.copy_(encode(rows / factor, fp8).reshape(data.shape))
    scale_inv.zero_()[: exponent.shape[0], : exponent.shape[1]] = exponent


def dequantized(tensor: Any, *, columnwise: bool = False) -> torch.Tensor:
    """Return a tensor's numbers in float32, from the form that a kernel would read.

    Raises:
        AssertionError: A kernel would need a form that is not there, or is out of date.
    """
    if not is_quantized(tensor):
        return tensor.detach().float()  # type: ignore[no-any-return]
    kind = type(tensor).__name__
    fp8 = torch_type(tensor._fp8_dtype)
    if kind.startswith("Float8Blockwise"):
        return _from_blocks(tensor, fp8, columnwise)
    if kind.startswith("MXFP8"):
        return _from_mx_blocks(tensor, fp8, columnwise)
    if kind.startswith("Float8"):
        return _from_one_scale(tensor, fp8, columnwise)
    raise NotImplementedError(f"the emulation has no {kind}")


def _from_one_scale(tensor: Any, fp8: torch.dtype, columnwise: bool) -> torch.Tensor:
    from transformer_engine.pytorch.utils import is_non_tn_fp8_gemm_supported

    scale_inv = tensor._scale_inv.float()
    if not columnwise or is_non_tn_fp8_gemm_supported():
        assert tensor._data is not None, "the product needs FP8 numbers that are not there"
        return tensor._data.view(fp8).float() * scale_inv  # type: ignore[no-any-return]
    assert tensor._transpose is not None, "the product needs a transpose that is not there"
    assert not tensor._transpose_invalid, "the product needs a transpose that is out of date"
    turned = tensor._transpose.view(fp8).float() * scale_inv
    return turned.reshape(turned.shape[0], -1).T.reshape(tuple(tensor.size()))  # type: ignore[no-any-return]


def _from_blocks(tensor: Any, fp8: torch.dtype, columnwise: bool) -> torch.Tensor:
    name = "columnwise" if columnwise else "rowwise"
    data, scale_inv = getattr(tensor, f"_{name}_data"), getattr(tensor, f"_{name}_scale_inv")
    assert data is not None, f"the product needs {name} FP8 numbers that are not there"
    rows = data.reshape(data.shape[0], -1) if columnwise else data.reshape(-1, data.shape[-1])
    block = (BLOCK if tensor._is_2D_scaled else 1, BLOCK)
    factor = spread(scale_inv if tensor._is_2D_scaled else scale_inv.T, block, rows.shape)
    numbers: torch.Tensor = rows.view(fp8).float() * factor
    return numbers.T.reshape(tuple(tensor.size())) if columnwise else numbers.reshape(data.shape)


def _from_mx_blocks(tensor: Any, fp8: torch.dtype, columnwise: bool) -> torch.Tensor:
    name = "columnwise" if columnwise else "rowwise"
    data, scale_inv = getattr(tensor, f"_{name}_data"), getattr(tensor, f"_{name}_scale_inv")
    assert data is not None, f"the product needs {name} FP8 numbers that are not there"
    rows = data.reshape(-1, data.shape[-1])
    block = (MX_BLOCK, 1) if columnwise else (1, MX_BLOCK)
    numbers = rows.view(fp8).float() * spread(mx_factor(scale_inv), block, rows.shape)
    return numbers.reshape(data.shape)  # type: ignore[no-any-return]
