"""How the output of attention, or of the MLP, is added to the residual."""

from collections.abc import Callable

import torch
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.transformer.transformer_config import TransformerConfig

OutputAndBias = tuple[torch.Tensor, torch.Tensor | None]
Add = Callable[[OutputAndBias, torch.Tensor, float], torch.Tensor]


class ResidualSum(torch.nn.Module):
    """residual + multiplier * norm(output + bias): for megatron-core's `get_bias_dropout_add`.

    Its layer calls it with two switches and then what it returned with tensors
    (transformer/transformer_layer.py, `self_attn_bda` and `mlp_bda`).
    """

    def __init__(
        self,
        config: TransformerConfig,
        norm: Callable[..., torch.nn.Module] | None,
        multiplier: float,
    ) -> None:
        """Make the sum.

        Args:
            config: The model's.
            norm: The class of the norm; None for none.
            multiplier: What the output is multiplied by.
        """
        super().__init__()
        self._multiplier = multiplier
        sizes = {"hidden_size": config.hidden_size, "eps": config.layernorm_epsilon}
        self.norm = None if norm is None else norm(config=config, **sizes)

    def forward(self, training: bool, fused: bool) -> Add:
        """Return the function that adds."""
        add: Add = get_bias_dropout_add(training, fused)

        def sum_up(
            output_and_bias: OutputAndBias, residual_SBH: torch.Tensor, dropout: float
        ) -> torch.Tensor:
            output_SBH, bias_H = output_and_bias
            if bias_H is not None:
                output_SBH = output_SBH + bias_H
            if self.norm is not None:
                output_SBH = self.norm(output_SBH)
            if self._multiplier != 1.0:
                output_SBH = output_SBH * self._multiplier
            return add((output_SBH, None), residual_SBH, dropout)

        return sum_up
