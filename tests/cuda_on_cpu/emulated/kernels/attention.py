"""cuDNN's attention over packed documents, in the layout `thd`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tests.cuda_on_cpu.emulated.extension import Member, NVTE_Fused_Attn_Backend
from tests.cuda_on_cpu.emulated.kernel import kernel


@dataclass(frozen=True)
class _Document:
    """Rows of one document; heads come first, and keys are there for each head of the queries."""

    of_queries: slice
    of_keys: slice
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scores: torch.Tensor


@kernel
def get_fused_attn_backend(params: Any) -> tuple[NVTE_Fused_Attn_Backend, str]:
    return NVTE_Fused_Attn_Backend.NVTE_F16_arbitrary_seqlen, ""


def _documents(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: Sequence[torch.Tensor],
    places: Sequence[Any],
    scale: float,
    mask: Member,
    window: Sequence[int],
) -> Iterator[_Document]:
    """Yield documents with their masked scores.

    Args:
        q: Queries [tokens, heads, dim]; k and v alike, with as many heads or fewer.
        k: Keys.
        v: Values.
        lengths: Sums of the documents' lengths, of queries and of keys.
        places: The same with padding, where there is any.
        scale: Of the scores.
        mask: One of two: a document's tokens see all of it, or those before them.
        window: Positions that are seen to the left and to the right of a token's own; -1 for all.
    """
    assert mask.name in ("NVTE_PADDING_MASK", "NVTE_PADDING_CAUSAL_MASK"), mask.name
    starts = [
        length if place is None else place for length, place in zip(lengths, places, strict=True)
    ]
    sizes = [length.diff().tolist() for length in lengths]
    repeats = q.shape[1] // k.shape[1]
    for num_q, num_k, first_q, first_k in zip(
        *sizes, *(start.tolist()[:-1] for start in starts), strict=True
    ):
        if not num_q or not num_k:
            continue
        of_queries, of_keys = slice(first_q, first_q + num_q), slice(first_k, first_k + num_k)
        queries = q[of_queries].float().transpose(0, 1)
        keys, values = (
            each[of_keys].float().transpose(0, 1).repeat_interleave(repeats, 0) for each in (k, v)
        )
        scores = queries @ keys.mT * scale
        if mask.name == "NVTE_PADDING_CAUSAL_MASK":
            is_seen = torch.ones(num_q, num_k, dtype=torch.bool).tril()
            if window[0] != -1:
                assert num_q == num_k, "the emulation has windows of whole documents alone"
                is_seen = is_seen.triu(-window[0])
            scores = scores.masked_fill(~is_seen, -torch.inf)
        yield _Document(of_queries, of_keys, queries, keys, values, scores)


def _check(
    layout: Member, dropout: float, lengths: Sequence[torch.Tensor], longest: Sequence[int]
) -> None:
    assert layout.name == "NVTE_THD_THD_THD", (
        f"{layout.name}: the emulation has packed documents alone"
    )
    assert dropout == 0.0, "the emulation has no dropout in attention"
    for length, most in zip(lengths, longest, strict=True):
        assert length.dtype is torch.int32, length.dtype
        assert int(length.diff().max()) <= most, f"{length}: the longest was said to be {most}"


@kernel
def fused_attn_fwd(
    max_seqlen_q: int,
    max_seqlen_kv: int,
    is_training: bool,
    attn_scale: float,
    p_dropout: float,
    set_zero: bool,
    qkv_layout: Member,
    o_format: Member,
    qkv_scale_inv_format: Member,
    bias_type: Member,
    attn_mask_type: Member,
    softmax_type: Member,
    window_size: Any,
    bottom_right_diagonal: bool,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_kv: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    fake_dtype: Any,
    cu_seqlens_q_padded: Any,
    cu_seqlens_kv_padded: Any,
    *others: Any,
) -> list[torch.Tensor]:
    lengths = (cu_seqlens_q, cu_seqlens_kv)
    _check(qkv_layout, p_dropout, lengths, (max_seqlen_q, max_seqlen_kv))
    out = torch.zeros(*q.shape[:2], v.shape[2])
    lse = torch.full((*q.shape[:2], 1), -torch.inf)
    places = (cu_seqlens_q_padded, cu_seqlens_kv_padded)
    for found in _documents(q, k, v, lengths, places, attn_scale, attn_mask_type, window_size):
        lse[found.of_queries, :, 0] = found.scores.logsumexp(-1).T
        out[found.of_queries] = (found.scores.softmax(-1) @ found.v).transpose(0, 1)
    random_state = torch.zeros(2, dtype=torch.int64)
    return [out.to(q.dtype), lse, random_state]


@kernel
def fused_attn_bwd(
    max_seqlen_q: int,
    max_seqlen_kv: int,
    attn_scale: float,
    p_dropout: float,
    set_zero: bool,
    qkv_layout: Member,
    o_format: Member,
    do_format: Member,
    dqkv_layout: Member,
    qkv_scale_inv_format: Member,
    do_scale_inv_format: Member,
    bias_type: Member,
    attn_mask_type: Member,
    softmax_type: Member,
    window_size: Any,
    bottom_right_diagonal: bool,
    deterministic: bool,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_kv: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    d_o: torch.Tensor,
    fake_dtype: Any,
    aux_ctx_tensors: Sequence[torch.Tensor],
    cu_seqlens_q_padded: Any,
    cu_seqlens_kv_padded: Any,
    *others: Any,
) -> list[Any]:
    """Go back from the kept log-sum-exp, which with context parallelism is over all keys."""
    lengths = (cu_seqlens_q, cu_seqlens_kv)
    _check(qkv_layout, p_dropout, lengths, (max_seqlen_q, max_seqlen_kv))
    dq, dk, dv = (torch.zeros(each.shape) for each in (q, k, v))
    places = (cu_seqlens_q_padded, cu_seqlens_kv_padded)
    for found in _documents(q, k, v, lengths, places, attn_scale, attn_mask_type, window_size):
        rows = found.of_queries
        weights = (found.scores - aux_ctx_tensors[0][rows].transpose(0, 1)).exp()
        d_out, out = (each[rows].float().transpose(0, 1) for each in (d_o, o))
        d_weights = d_out @ found.v.mT - (d_out * out).sum(-1, keepdim=True)
        d_scores = weights * d_weights * attn_scale
        dq[rows] = (d_scores @ found.k).transpose(0, 1)
        dk[found.of_keys] = _sum_over_queries(d_scores.mT @ found.q, k.shape[1])
        dv[found.of_keys] = _sum_over_queries(weights.mT @ d_out, v.shape[1])
    return [dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None]


def _sum_over_queries(of_heads: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Add up what the heads give that share keys."""
    return of_heads.view(num_groups, -1, *of_heads.shape[1:]).sum(1).transpose(0, 1)
