"""Bit by bit: a tensor of a Hugging Face folder and the same tensor of a checkpoint."""

from dataclasses import dataclass

import numpy as np
import torch

from megatron_msm.models.tensor_table import MappedTensor

# Values compared at once; bounds the memory that a comparison takes beside the two tensors.
_BLOCK = 2**22


@dataclass(frozen=True)
class TensorDifference:
    """A tensor whose bits are not the same on both sides."""

    name: str
    hf_dtype: str
    megatron_dtype: str
    max_abs: float
    """Largest absolute difference; infinite where one side has NaN and the other has not."""


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors of the CPU have the same dtype, size and bits (NaN equals itself).

    NumPy compares 10 times as fast as `torch.equal`, which waits for its threads after each block.
    """
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    as_int = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.dtype.itemsize]
    return np.array_equal(one.detach().view(as_int).numpy(), other.detach().view(as_int).numpy())


def not_finite_parts(tensor: MappedTensor, fused: torch.Tensor) -> list[str]:
    """Return the Hugging Face names of the parts of a Megatron tensor with NaN or infinity."""
    if _is_finite(fused):
        return []
    parts = zip(tensor.hf_names, tensor.views(fused), strict=True)
    return [name for name, part in parts if not _is_finite(part)]


def _is_finite(tensor: torch.Tensor) -> bool:
    # The extremes are NaN if any value is; this is as fast as memory is read.
    return all(bool(extreme.isfinite()) for extreme in torch.aminmax(tensor))


def difference(name: str, original: torch.Tensor, found: torch.Tensor) -> TensorDifference:
    """Measure how far two tensors of the same size are apart."""
    largest = 0.0
    one_N, other_N = original.reshape(-1), found.reshape(-1)
    for start in range(0, one_N.numel(), _BLOCK):
        one, other = one_N[start : start + _BLOCK], other_N[start : start + _BLOCK]
        gaps = (one.double() - other.double()).abs()
        gaps[(one == other) | (one.isnan() & other.isnan())] = 0.0  # inf - inf is NaN
        largest = max(largest, float(gaps.nan_to_num(nan=torch.inf).max()))
    return TensorDifference(
        name=name,
        hf_dtype=str(original.dtype).removeprefix("torch."),
        megatron_dtype=str(found.dtype).removeprefix("torch."),
        max_abs=largest,
    )
