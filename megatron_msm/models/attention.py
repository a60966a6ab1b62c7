"""Attention inside packed documents, by torch's scaled_dot_product_attention.

megatron-core's own DotProductAttention refuses packed sequences, and Transformer Engine's kernels
need a GPU. This core attention runs one causal attention per document, so nothing is computed
across documents and nothing has to be masked: the cost is the sum of squared document lengths.
On a GPU the Transformer Engine layer spec is used instead.

Legend: T tokens of the micro batch, N query heads and G key/value heads of this tensor parallel
rank, D head size.
"""

from typing import Any

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch.nn.functional import scaled_dot_product_attention


class PackedDocumentAttention(torch.nn.Module):
    """Drop-in for megatron-core's DotProductAttention (transformer/dot_product_attention.py)."""

    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
    ) -> None:
        super().__init__()
        if config.context_parallel_size != 1:
            raise ValueError("PackedDocumentAttention does not split sequences over ranks")
        self.softmax_scale = softmax_scale

    def forward(
        self,
        query_TND: torch.Tensor,
        key_TGD: torch.Tensor,
        value_TGD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: Any = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> torch.Tensor:
        """Attend causally inside each document.

        Args:
            query_TND: Queries of all documents, one after another.
            key_TGD: Keys; G divides N.
            value_TGD: Values.
            attention_mask: Unused; document boundaries say all there is to say.
            attn_mask_type: Unused; always causal.
            attention_bias: Must be None.
            packed_seq_params: Document boundaries in `cu_seqlens_q`, int32, [documents + 1].

        Returns:
            [T, N * D], same dtype as the queries.
        """
        assert packed_seq_params is not None, "the trainer always passes document boundaries"
        assert attention_bias is None
        # One read of the boundaries per layer; the tensor is on the CPU already.
        lengths = packed_seq_params.cu_seqlens_q.diff().tolist()
        outputs = [
            scaled_dot_product_attention(
                query.transpose(0, 1).unsqueeze(0),
                key.transpose(0, 1).unsqueeze(0),
                value.transpose(0, 1).unsqueeze(0),
                is_causal=True,
                scale=self.softmax_scale,
                enable_gqa=True,
            )
            .squeeze(0)
            .transpose(0, 1)
            for query, key, value in zip(
                torch.split(query_TND, lengths),
                torch.split(key_TGD, lengths),
                torch.split(value_TGD, lengths),
                strict=True,
            )
        ]
        return torch.cat(outputs).flatten(1)
