"""Rotary embeddings: their frequencies, and those of models whose layers have several.

megatron-core 0.16.1 knows the `llama3` kind with fixed settings only (low 1, high 4, 8192 original
positions: rotary_pos_embedding.py, `_apply_scaling`), and of `yarn` not every setting (no
attention factor of its own), so the frequencies are computed here and put into its module.
"""

import math
from collections.abc import Sequence

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding

from megatron_msm.models.shape import ModelShape, RopeScaling, RopeShape


class RopesOfLayers(torch.nn.Module):
    """In the place of a model's RotaryEmbedding: several of them, of which a layer takes its own.

    They are computed once for all layers and go to them as one tensor, which a recomputed layer can
    keep; layers/own_attention.py takes a part.
    """

    def __init__(self, ropes: Sequence[RotaryEmbedding]) -> None:
        super().__init__()
        self.ropes = torch.nn.ModuleList(ropes)

    def get_rotary_seq_len(self, *args: object, **settings: object) -> int:
        """Return how many positions are needed, as RotaryEmbedding does."""
        (length,) = {rope.get_rotary_seq_len(*args, **settings) for rope in self.ropes}  # type: ignore[operator]
        return int(length)

    def forward(self, max_seq_len: int, **settings: object) -> torch.Tensor:
        """Return the angles of each, float32 [ropes, positions, 1, 1, head_dim]."""
        return torch.stack([rope(max_seq_len, **settings) for rope in self.ropes])


def inverse_frequencies(rope: RopeShape, head_dim: int) -> torch.Tensor:
    """Return the inverse frequencies, float32 [head_dim / 2], on the CPU.

    Source: transformers 5.24, modeling_rope_utils.py, `_compute_linear_scaling_rope_parameters`,
    `_compute_llama3_parameters` and `_compute_yarn_parameters`: wavelengths that fit often into the
    original length stay, those that do not fit are multiplied by `factor`, between the two the
    result is interpolated.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / rope.theta**exponents
    scaling = rope.scaling
    if scaling is None:
        return frequencies
    stretched = frequencies / scaling.factor
    if scaling.kind == "linear":
        return stretched
    if scaling.kind == "yarn":
        share_kept = _kept_by_yarn(scaling, rope.theta, head_dim)
    else:
        share_kept = _kept_by_llama3(frequencies, scaling)
    return (1 - share_kept) * stretched + share_kept * frequencies


def _kept_by_llama3(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Return how much of each frequency stays, by how often it turns in the original length."""
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    return ((turns - low) / (high - low)).clamp(0.0, 1.0)


def _kept_by_yarn(scaling: RopeScaling, theta: float, head_dim: int) -> torch.Tensor:
    """Return how much of each frequency stays: a ramp over their numbers, not their turns."""

    def number_of(turns: float) -> float:
        length = scaling.original_max_position_embeddings / (turns * 2 * math.pi)
        return head_dim * math.log(length) / (2 * math.log(theta))

    first, last = number_of(scaling.beta_fast), number_of(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    steps = torch.arange(head_dim // 2, dtype=torch.float32)
    width = last - first if last != first else 0.001
    return 1 - ((steps - first) / width).clamp(0.0, 1.0)


def scale_of_scores(shape: ModelShape, rope: RopeShape | None) -> float | None:
    """Return what the attention of layers with `rope` multiplies q k by.

    None for the usual 1 / sqrt(head_dim).

    YaRN multiplies rotated queries and keys by a factor. Every dimension of a head is rotated, so
    scores get its square. megatron-core 0.16.1 has the factor, too, but its fused kernel for packed
    documents leaves it out in silence (rope_utils.py, `apply_rotary_pos_emb`).
    """
    scaling = None if rope is None else rope.scaling
    factor = 1.0 if scaling is None else scaling.attention_factor
    if factor == 1.0:
        return shape.score_scale
    return factor**2 * (shape.score_scale or 1 / math.sqrt(shape.head_dim))
