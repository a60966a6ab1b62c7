"""Kernels that make FP8 tensors, and the scales that they are made with."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from tests.cuda_on_cpu.emulated.kernel import kernel
from tests.cuda_on_cpu.emulated.kernels.number_formats import (
    BLOCK,
    MX_BLOCK,
    amax_of_blocks,
    dequantized,
    encode,
    mx_exponent,
    mx_factor,
    quantize_into,
    scale_of,
    spread,
    torch_type,
)

_ARGUMENTS = {"_data": "data", "_transpose": "data_transpose", "_scale_inv": "fp8_scale_inv"}


@kernel
def quantize(tensor: Any, quantizer: Any, output: Any = None, noop: Any = None) -> Any:
    if output is None:
        output = create_empty_quantized_tensor(
            quantizer, list(tensor.shape), tensor.dtype, tensor.device, False
        )
    if noop is None or not noop.numel() or not float(noop):
        quantize_into(dequantized(tensor), quantizer, output)
    return output


@kernel
def dequantize(input: Any, otype: Any) -> torch.Tensor:
    has_rows = getattr(input, "_data", getattr(input, "_rowwise_data", None)) is not None
    return dequantized(input, columnwise=not has_rows).to(torch_type(otype))


@kernel
def create_empty_quantized_tensor(
    quantizer: Any, shape: Any, dtype: torch.dtype, device: Any, pin_memory: bool
) -> Any:
    shape = tuple(shape)
    if type(quantizer).__name__ == "Float8Quantizer":
        metadata, tensors = _with_one_scale(quantizer, shape, dtype)
    else:
        metadata = quantizer.storage_metadata(dtype)
        tensors = quantizer.alloc_tensors(shape, device="cpu")
    settings = dict(metadata["nontensor_kwargs"])
    names = ("_data", "_transpose") if "_scale_inv" in tensors else _names_of_blocks()
    for name in (*names, *tensors):
        settings[_ARGUMENTS.get(name, name.removeprefix("_"))] = tensors.get(name)
    if quantizer.internal:
        return metadata["cls"](**settings)
    del settings["fake_dtype"]
    return metadata["cls"](shape=shape, dtype=dtype, device=torch.device("cpu"), **settings)


def _names_of_blocks() -> Sequence[str]:
    return [f"_{form}wise_{part}" for form in ("row", "column") for part in ("data", "scale_inv")]


def _with_one_scale(quantizer: Any, shape: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return what the class of delayed scaling does not say of itself, as the others do."""
    from transformer_engine.pytorch.tensor.float8_tensor import Float8CurrentScalingQuantizer

    alike = Float8CurrentScalingQuantizer(
        quantizer.dtype,
        torch.device("cpu"),
        rowwise=quantizer.rowwise_usage,
        columnwise=quantizer.columnwise_usage,
    )
    alike.internal = quantizer.internal
    metadata = alike.storage_metadata(dtype)
    metadata["nontensor_kwargs"]["quantizer"] = quantizer
    return metadata, alike.alloc_tensors(shape, device="cpu")


@kernel
def split_quantize(
    tensor: torch.Tensor,
    split_sections: Sequence[int],
    quantizer_list: Sequence[Any],
    disable_bulk_allocation: bool = False,
) -> list[Any]:
    parts = tensor.split(list(split_sections))
    return [quantize(part, each) for part, each in zip(parts, quantizer_list, strict=True)]


@kernel
def bgrad_quantize(input: torch.Tensor, quantizer: Any) -> tuple[torch.Tensor, Any]:
    bias_grad = input.float().reshape(-1, input.shape[-1]).sum(0).to(input.dtype)
    return bias_grad, quantize(input, quantizer)


@kernel
def fp8_transpose(input: torch.Tensor, dtype: Any, *, out: Any = None) -> torch.Tensor:
    turned = input.reshape(-1, input.shape[-1]).T.contiguous()
    turned = turned.view(input.shape[-1], *input.shape[:-1])
    return turned if out is None else out.copy_(turned.view(out.shape))


@kernel
def swap_first_dims(tensor: torch.Tensor, *, out: Any = None) -> torch.Tensor:
    turned = tensor.transpose(0, 1).contiguous()
    return turned if out is None else out.copy_(turned.view(out.shape))


@kernel
def compute_amax(input: torch.Tensor, amax: torch.Tensor) -> None:
    amax.copy_(input.float().abs().max().reshape(amax.shape))


@kernel
def fused_amax_and_scale_update_after_reduction(
    amax_reduction_buffer: torch.Tensor,
    amax_histories: Sequence[torch.Tensor],
    scales: Sequence[torch.Tensor],
    amax_compute_algo: str,
    fp8_dtype: Any,
    margin: float,
) -> None:
    newest = amax_reduction_buffer.split([history.shape[1] for history in amax_histories])
    for history, scale, amax in zip(amax_histories, scales, newest, strict=True):
        history[0].copy_(amax)
        amax = history.amax(0) if amax_compute_algo == "max" else history[0].clone()
        found = torch.finfo(torch_type(fp8_dtype)).max / amax / 2**margin
        is_usable = torch.isfinite(amax) & (amax > 0) & torch.isfinite(found)
        scale.copy_(torch.where(is_usable, found, scale))
        history.copy_(torch.roll(history, -1, 0))
        history[0].zero_()


@kernel
def multi_tensor_compute_scale_and_scale_inv(
    chunk_size: int, noop: Any, lists: Any, max_fp8: float, force_pow_2: bool, epsilon: float
) -> None:
    of_largest = {torch.finfo(kind).max: kind for kind in (torch.float8_e4m3fn, torch.float8_e5m2)}
    for amax, scale, scale_inv in zip(*lists, strict=True):
        fp8 = of_largest[max_fp8]
        scale.copy_(scale_of(amax, fp8, epsilon=epsilon, is_power_of_2=force_pow_2))
        scale_inv.copy_((1 / scale).view(scale_inv.shape))


@kernel
def multi_tensor_compute_scale_inv_e8m0(chunk_size: int, dummy: Any, lists: Any) -> None:
    for amax, scale_inv in zip(*lists, strict=True):
        scale_inv.copy_(mx_exponent(amax, torch.float8_e4m3fn))


def _whole(part: torch.Tensor, h: int, w: int, start_offset: int) -> torch.Tensor:
    """Return a matrix of which a rank has a part, with zeros in place of the rest."""
    whole = torch.zeros(h * w)
    whole[start_offset : start_offset + part.numel()] = part.float()
    return whole.view(h, w)


@kernel
def fp8_block_scaling_compute_partial_amax(
    tensor: torch.Tensor, amax: torch.Tensor, h: int, w: int, start_offset: int, block_len: int
) -> None:
    found = amax_of_blocks(_whole(tensor, h, w, start_offset), (block_len, block_len))
    amax[: found.shape[0], : found.shape[1]] = found


@kernel
def fp8_block_scaling_partial_cast(
    inp: torch.Tensor,
    out: torch.Tensor,
    scale: torch.Tensor,
    h: int,
    w: int,
    start_offset: int,
    block_len: int,
    out_dtype: Any,
) -> None:
    assert block_len == BLOCK, block_len
    factor = spread(scale, (BLOCK, BLOCK), (h, w)).reshape(-1)
    part = factor[start_offset : start_offset + inp.numel()]
    out.copy_(encode(inp.float() * part, torch_type(out_dtype)))


@kernel
def mxfp8_scaling_compute_partial_amax(
    input: torch.Tensor,
    amax_rowwise: torch.Tensor,
    amax_colwise: torch.Tensor,
    rows: int,
    cols: int,
    start_offset: int,
) -> None:
    whole = _whole(input, rows, cols, start_offset)
    for amax, block in ((amax_rowwise, (1, MX_BLOCK)), (amax_colwise, (MX_BLOCK, 1))):
        found = amax_of_blocks(whole, block)
        amax[: found.shape[0], : found.shape[1]] = found


@kernel
def mxfp8_scaling_partial_cast(
    input: torch.Tensor,
    output_rowwise: torch.Tensor,
    output_colwise: torch.Tensor,
    scale_inv_rowwise: torch.Tensor,
    scale_inv_colwise: torch.Tensor,
    rows: int,
    cols: int,
    start_offset: int,
) -> None:
    forms = (
        (output_rowwise, scale_inv_rowwise, (1, MX_BLOCK)),
        (output_colwise, scale_inv_colwise, (MX_BLOCK, 1)),
    )
    for out, scale_inv, block in forms:
        assert math.prod(out.shape) == input.numel(), (out.shape, input.shape)
        factor = spread(mx_factor(scale_inv), block, (rows, cols)).reshape(-1)
        part = factor[start_offset : start_offset + input.numel()]
        out.copy_(encode(input.float() / part, torch.float8_e4m3fn))
