"""The checksum by which copies of a weight are compared: it follows every bit and its index."""

import pytest
import torch

from megatron_msm.train.checkpoints import replicas
from megatron_msm.train.checkpoints.replicas import checksum


def weight(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(5, 40, generator=torch.Generator().manual_seed(2)).to(dtype)


def worked(tensor: torch.Tensor) -> int:
    """The sum in Python's whole numbers, which do not overflow."""
    words = tensor.reshape(-1).view(torch.int16).tolist()
    total = int(sum(word * (2 * index + 1) for index, word in enumerate(words)))
    return (total * 6364136223846793005 + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize("chunk", [1 << 22, 64, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_sum_that_it_says_whatever_the_chunks(
    dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_CHUNK", chunk)
    assert int(checksum(weight(dtype))) == worked(weight(dtype))


def test_a_flipped_bit_and_two_swapped_elements_show() -> None:
    whole = weight(torch.bfloat16)
    flipped = whole.clone()
    flipped.view(-1).view(torch.int16)[137] ^= 1
    swapped = whole.clone().view(-1)
    swapped[3], swapped[150] = whole.view(-1)[150], whole.view(-1)[3]
    assert len({int(checksum(copy)) for copy in (whole, flipped, swapped)}) == 3


def test_strides_do_not_matter() -> None:
    whole = weight(torch.float32)
    assert int(checksum(whole.T.contiguous().T)) == int(checksum(whole))
