"""Attention inside packed documents, by torch's scaled_dot_product_attention.

megatron-core's own DotProductAttention refuses packed sequences, and Transformer Engine's kernels
need a GPU. This core attention runs one causal attention per document, so nothing is computed
across documents: the cost is the sum of squared document lengths, with a window or without one
(what lies before the window is computed and masked). Under context parallelism each
rank gathers the keys and values of all and keeps its own queries, split as Transformer Engine
splits them. On a GPU the Transformer Engine layer spec is used instead.

Legend: T tokens of the micro batch on this rank, N query heads and G key/value heads of this tensor
parallel rank, D head size.
"""

import numpy as np
import numpy.typing as npt
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import pad, scaled_dot_product_attention

from megatron_msm.models.layers.context import ContextShare

# In bf16 torch's backward keeps a compiled matrix product for each shape that it has met, and a
# document's length sets the shapes. With documents of any length a process grows by megabytes a
# step; in whole blocks of this many positions the shapes are few.
_BLOCK = 64


class PackedDocumentAttention(torch.nn.Module):
    """Drop-in for megatron-core's DotProductAttention (transformer/dot_product_attention.py)."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        *,
        pg_collection: ProcessGroupCollection,
    ) -> None:
        super().__init__()
        self.softmax_scale = softmax_scale
        self.window = None if config.window_size is None else config.window_size[0] + 1
        self.context_group = pg_collection.cp
        self.context = ContextShare(self.context_group.rank(), self.context_group.size())

    def forward(
        self,
        query_TND: torch.Tensor,
        key_TGD: torch.Tensor,
        value_TGD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
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
            packed_seq_params: Boundaries of the whole documents in `cu_seqlens_q`, int32,
                [documents + 1].

        Returns:
            [T, N * D], same dtype as the queries.
        """
        assert packed_seq_params is not None, "the trainer always passes document boundaries"
        assert attention_bias is None
        # One read of the boundaries per layer; the tensor is on the CPU already.
        lengths = packed_seq_params.cu_seqlens_q.diff().numpy().astype(np.int64)
        if self.context.size > 1:
            key_TGD, value_TGD = (
                self._of_all_ranks(part, lengths) for part in (key_TGD, value_TGD)
            )
        outputs = [
            self._attend(query, key, value)
            for query, key, value in zip(
                torch.split(query_TND, (lengths // self.context.size).tolist()),
                torch.split(key_TGD, lengths.tolist()),
                torch.split(value_TGD, lengths.tolist()),
                strict=True,
            )
        ]
        return torch.cat(outputs).flatten(1)

    def _attend(
        self, query_TND: torch.Tensor, key_SGD: torch.Tensor, value_SGD: torch.Tensor
    ) -> torch.Tensor:
        """Attend in one document of S positions, of which this rank asks for T; [T, N, D]."""
        num_asked = len(query_TND)
        seen = self._seen(len(key_SGD))
        if query_TND.dtype is torch.bfloat16:
            more_T, more_S = -num_asked % _BLOCK, -len(key_SGD) % _BLOCK
            # Added positions come last, so no causal query sees them; a row of a mask that admits
            # none would be NaN, so added queries see all.
            query_TND = _extended(query_TND, more_T)
            key_SGD, value_SGD = _extended(key_SGD, more_S), _extended(value_SGD, more_S)
            if seen is not None:
                seen = pad(pad(seen, (0, more_S), value=False), (0, 0, 0, more_T), value=True)
        return (
            scaled_dot_product_attention(
                query_TND.transpose(0, 1).unsqueeze(0),
                key_SGD.transpose(0, 1).unsqueeze(0),
                value_SGD.transpose(0, 1).unsqueeze(0),
                attn_mask=seen,
                is_causal=seen is None,
                scale=self.softmax_scale,
                enable_gqa=True,
            )
            .squeeze(0)
            .transpose(0, 1)[:num_asked]
        )

    def _seen(self, length: int) -> torch.Tensor | None:
        """Return which of a document's positions each of this rank's sees, bool [T, S].

        None where that is the plain triangle of a whole document.
        """
        window = length if self.window is None else min(self.window, length)
        if self.context.size == 1 and window == length:
            return None
        mine = torch.from_numpy(self.context.positions(np.array([length])))
        distances = mine.unsqueeze(1) - torch.arange(length)
        return (distances >= 0) & (distances < window)

    def _of_all_ranks(self, part_TGD: torch.Tensor, lengths: npt.NDArray[np.int64]) -> torch.Tensor:
        """Gather keys or values over the context parallel ranks, in the documents' order.

        Backward adds up every rank's gradient of this rank's part.
        """
        gathered: torch.Tensor = gather_from_sequence_parallel_region(
            part_TGD.contiguous(), tensor_parallel_output_grad=True, group=self.context_group
        )
        shares = [ContextShare(rank, self.context.size) for rank in range(self.context.size)]
        order = np.concatenate([share.positions(lengths) for share in shares])
        return gathered[torch.from_numpy(np.argsort(order))]


def _extended(part_THD: torch.Tensor, num_positions: int) -> torch.Tensor:
    """Add positions of zeros at the end."""
    return pad(part_THD, (0, 0, 0, 0, 0, num_positions)) if num_positions else part_THD
