"""RMSNorm of queries, or of keys, over all heads at once, which tensor parallel ranks share.

Each rank has some of the heads and the weights that belong to them. The mean of the squares is over
all heads, so the ranks add up one number a token in each direction. The same module serves on a CPU
and on a GPU: no kernel of Transformer Engine reduces over ranks. Only the input and the scale of
each token are kept for the backward pass.

Legend: S positions, B batch, N heads and P = N x D widths of this tensor parallel rank, D head
size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint


class NormOverHeads(torch.nn.Module):
    """In the place of megatron-core's `q_layernorm` or `k_layernorm`, which see one head each.

    `TransformerConfig.qk_layernorm` has to be off: with it megatron-core adds up the gradients of
    these weights over tensor parallel ranks, as if each had the same (distributed/
    finalize_model_grads.py, `_allreduce_non_tensor_model_parallel_grads`).
    """

    def __init__(
        self,
        config: TransformerConfig,
        hidden_size: int,
        eps: float,
        *,
        num_heads: int,
        tp_group: torch.distributed.ProcessGroup,
    ) -> None:
        """Make the norm, with undefined weights.

        Args:
            config: The model's.
            hidden_size: Of one head.
            eps: Added to the mean of the squares.
            num_heads: Of all ranks.
            tp_group: The ranks that share them.
        """
        super().__init__()
        self._eps, self._tp, self._width = eps, tp_group, num_heads * hidden_size
        self.weight = torch.nn.Parameter(
            torch.empty(
                self._width // tp_group.size(),
                dtype=config.params_dtype,
                device=torch.cuda.current_device(),
            )
        )
        set_tensor_model_parallel_attributes(self.weight, True, 0, 1)

    def forward(self, heads_SBND: torch.Tensor) -> torch.Tensor:
        """Return the normalised heads, of the same size and dtype."""
        normed_SBP: torch.Tensor = _RmsNorm.apply(  # type: ignore[no-untyped-call]
            heads_SBND.flatten(-2), self.weight, self._eps, self._width, self._tp
        )
        return normed_SBP.view(heads_SBND.shape)

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: Sequence[tuple[int, int, int]] = (),
        metadata: dict[str, object] | None = None,
    ) -> ShardedStateDict:
        """Describe the shard: this rank's heads."""
        assert metadata is not None
        return make_sharded_tensors_for_checkpoint(
            {"weight": self.weight},
            prefix,
            {"weight": 0},
            sharded_offsets,
            tp_group=self._tp,
            dp_cp_group=metadata["dp_cp_group"],
        )


class _RmsNorm(torch.autograd.Function):
    """weight x / sqrt(mean(x^2) + eps) in float32, the mean over all ranks' widths."""

    @staticmethod
    def forward(
        ctx: Any,
        x_SBP: torch.Tensor,
        weight_P: torch.Tensor,
        eps: float,
        width: int,
        group: torch.distributed.ProcessGroup,
    ) -> torch.Tensor:
        wide_SBP = x_SBP.float()
        squares_SB1 = wide_SBP.square().sum(dim=-1, keepdim=True)
        scale_SB1 = torch.rsqrt(_over_ranks(squares_SB1, group) / width + eps)
        ctx.save_for_backward(x_SBP, weight_P, scale_SB1)
        ctx.width, ctx.group = width, group
        return (weight_P * (wide_SBP * scale_SB1)).to(x_SBP.dtype)

    @staticmethod
    def backward(ctx: Any, grad_SBP: torch.Tensor) -> Any:
        x_SBP, weight_P, scale_SB1 = ctx.saved_tensors
        unit_SBP, grad_SBP = x_SBP.float() * scale_SB1, grad_SBP.float()
        grad_weight_P = (grad_SBP * unit_SBP).flatten(0, -2).sum(dim=0).to(weight_P.dtype)
        grad_unit_SBP = grad_SBP * weight_P
        along_SB1 = (grad_unit_SBP * unit_SBP).sum(dim=-1, keepdim=True)
        along_SB1 = _over_ranks(along_SB1, ctx.group) / ctx.width
        grad_x_SBP = scale_SB1 * (grad_unit_SBP - unit_SBP * along_SB1)
        return grad_x_SBP.to(x_SBP.dtype), grad_weight_P, None, None, None


def _over_ranks(part: torch.Tensor, group: torch.distributed.ProcessGroup) -> torch.Tensor:
    if group.size() > 1:
        torch.distributed.all_reduce(part, group=group)
    return part
