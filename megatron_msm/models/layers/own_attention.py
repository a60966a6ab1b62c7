"""Attention whose window, rotation and scale are its layer's own, not the model's."""

import copy

import torch
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.transformer_config import TransformerConfig


class OwnAttention(SelfAttention):  # type: ignore[misc]  # megatron-core has no types
    """megatron-core's self attention with settings that its configuration has for all layers.

    It gets a copy of the configuration with those of its layer, so Transformer Engine's kernels and
    the attention on a CPU read them where they read them anyway.

    Source: megatron-core 0.16.1: TEDotProductAttention (extensions/transformer_engine.py) reads
    `window_size`, the positions to the left and to the right of a token's own; `Attention`
    (transformer/attention.py) hands `softmax_scale` to the core attention. With context parallelism
    Transformer Engine has windows where keys and values of all ranks are gathered, not where they
    go round; for packed documents since its pull request 2829 (2.20.2 has it), earlier ones end
    with an error.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *args: object,
        window: int | None,
        rope: int | None,
        num_ropes: int,
        softmax_scale: float | None,
        **settings: object,
    ) -> None:
        """Build the attention.

        Args:
            config: The model's.
            *args: As for SelfAttention.
            window: Positions that a token sees, itself included; None for all before it.
            rope: Which of the model's rotations; None for none.
            num_ropes: How many the model has.
            softmax_scale: What scores are multiplied by; None for 1 / sqrt(head_dim).
            **settings: As for SelfAttention.
        """
        own = copy.copy(config)
        own.window_size = None if window is None else (window - 1, 0)
        own.softmax_scale = softmax_scale
        if window is not None and config.context_parallel_size > 1:
            settings["cp_comm_type"] = "all_gather"
        super().__init__(own, *args, **settings)
        self._rope, self._num_ropes = rope, num_ropes

    def forward(
        self,
        hidden_states: torch.Tensor,
        *args: object,
        rotary_pos_emb: torch.Tensor,
        **settings: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend.

        Args:
            hidden_states: [S, B, H]
            *args: As for SelfAttention.
            rotary_pos_emb: Angles [positions, 1, 1, head_dim], or those of the model's several
                rotations, [ropes, positions, 1, 1, head_dim].
            **settings: As for SelfAttention.

        Returns:
            [S, B, H] and a bias or None.
        """
        angles = rotary_pos_emb if self._num_ropes == 1 else rotary_pos_emb[self._rope]
        attended: tuple[torch.Tensor, torch.Tensor | None] = super().forward(
            hidden_states,
            *args,
            rotary_pos_emb=None if self._rope is None else angles,
            **settings,
        )
        return attended
