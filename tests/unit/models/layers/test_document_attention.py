"""Attention of packed documents in bf16: memory that stays, and results of plain mathematics."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from megatron_msm.models.layers.attention import PackedDocumentAttention
from megatron_msm.models.layers.context import ContextShare

# Run in a process of its own; prints by how many MiB memory in use grew over 150 documents of other
# lengths than the first 50. glibc counts what was handed out, so this says nothing of
# fragmentation.
GROWTH = """
import ctypes, random, torch
from tests.unit.models.layers.test_document_attention import attend
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in names]
library = ctypes.CDLL(None)
library.mallinfo2.restype = Counts
def in_use():
    counts = library.mallinfo2()
    return counts.uordblks + counts.hblkhd
torch.set_num_threads(1)
lengths = random.Random(0).sample(range(5, 1024), 200)
for number, length in enumerate(lengths):
    if number == 50:
        before = in_use()
    attend(length, torch.bfloat16)
print((in_use() - before) / 2**20)
"""


def attend(
    length: int,
    dtype: torch.dtype,
    *,
    share: ContextShare | None = None,
    window: int | None = None,
) -> list[torch.Tensor]:
    """Return output and gradients of one document, in float32."""
    share = share or ContextShare(0, 1)
    group = SimpleNamespace(rank=lambda: share.rank, size=lambda: share.size)
    layer = PackedDocumentAttention(
        SimpleNamespace(window_size=None if window is None else (window - 1, 0)),
        1,
        None,
        "self",
        softmax_scale=0.25,
        pg_collection=SimpleNamespace(cp=group),
    )
    generator = torch.Generator().manual_seed(length)
    query, key, value = (
        torch.randn(positions, heads, 16, generator=generator).to(dtype).requires_grad_()
        for positions, heads in ((length // share.size, 6), (length, 3), (length, 3))
    )
    output = layer._attend(query, key, value)
    weight = torch.randn(output.shape, generator=generator)
    gradients = torch.autograd.grad((output.float() * weight).sum(), (query, key, value))
    return [part.float() for part in (output.detach(), *gradients)]


def by_hand(length: int, share: ContextShare, window: int | None) -> list[torch.Tensor]:
    """Return the same in float64 from the definition, from inputs that were rounded to bf16."""
    generator = torch.Generator().manual_seed(length)
    query, key, value = (
        torch.randn(positions, heads, 16, generator=generator).bfloat16().double().requires_grad_()
        for positions, heads in ((length // share.size, 6), (length, 3), (length, 3))
    )
    half = length // (2 * share.size)
    if share.size == 1:
        positions = torch.arange(length)
    else:  # a chunk from the front and its mirror from the end
        starts = (share.rank * half, (2 * share.size - 1 - share.rank) * half)
        positions = torch.cat([torch.arange(start, start + half) for start in starts])
    scores = torch.einsum("tnd,snd->nts", query, key.repeat_interleave(2, dim=1)) * 0.25
    hidden = positions[:, None] < torch.arange(length)
    if window is not None:
        hidden |= positions[:, None] >= torch.arange(length) + window
    probabilities = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    output = torch.einsum("nts,snd->tnd", probabilities, value.repeat_interleave(2, dim=1))
    weight = torch.randn(output.shape, generator=generator)
    gradients = torch.autograd.grad((output * weight).sum(), (query, key, value))
    return [part.float() for part in (output.detach(), *gradients)]


@pytest.mark.parametrize("length", [4, 64, 100, 260, 700])
@pytest.mark.parametrize(
    "share", [ContextShare(0, 1), ContextShare(0, 2), ContextShare(1, 2)], ids=["1", "2.0", "2.1"]
)
@pytest.mark.parametrize("window", [None, 3, 50, 64])
def test_bf16_attention_is_that_of_the_definition(
    length: int, share: ContextShare, window: int | None
) -> None:
    found = attend(length, torch.bfloat16, share=share, window=window)
    for one, expected in zip(found, by_hand(length, share, window), strict=True):
        assert one.shape == expected.shape
        assert (one - expected).norm() < 0.01 * expected.norm()


def test_documents_of_new_lengths_keep_no_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 20
