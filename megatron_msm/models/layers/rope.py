"""Frequencies of rotary embeddings that were stretched for longer sequences.

megatron-core 0.16.1 knows the `llama3` kind with fixed settings only (low 1, high 4, 8192 original
positions: rotary_pos_embedding.py, `_apply_scaling`), and of `yarn` not every setting (no
attention factor of its own), so the frequencies are computed here and put into its module.
"""

import math

import torch

from megatron_msm.models.shape import ModelShape, RopeScaling


def stretched_frequencies(shape: ModelShape, scaling: RopeScaling) -> torch.Tensor:
    """Return the inverse frequencies, float32 [head_dim / 2], on the CPU.

    Source: transformers 5.24, modeling_rope_utils.py, `_compute_linear_scaling_rope_parameters`,
    `_compute_llama3_parameters` and `_compute_yarn_parameters`: wavelengths that fit often into the
    original length stay, those that do not fit are multiplied by `factor`, between the two the
    result is interpolated.
    """
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    frequencies = 1.0 / shape.rope_theta**exponents
    stretched = frequencies / scaling.factor
    if scaling.kind == "linear":
        return stretched
    if scaling.kind == "yarn":
        share_kept = _kept_by_yarn(shape, scaling)
    else:
        share_kept = _kept_by_llama3(frequencies, scaling)
    return (1 - share_kept) * stretched + share_kept * frequencies


def _kept_by_llama3(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Return how much of each frequency stays, by how often it turns in the original length."""
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    return ((turns - low) / (high - low)).clamp(0.0, 1.0)


def _kept_by_yarn(shape: ModelShape, scaling: RopeScaling) -> torch.Tensor:
    """Return how much of each frequency stays: a ramp over their numbers, not their turns."""

    def number_of(turns: float) -> float:
        length = scaling.original_max_position_embeddings / (turns * 2 * math.pi)
        return shape.head_dim * math.log(length) / (2 * math.log(shape.rope_theta))

    first, last = number_of(scaling.beta_fast), number_of(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, shape.head_dim - 1)
    steps = torch.arange(shape.head_dim // 2, dtype=torch.float32)
    width = last - first if last != first else 0.001
    return 1 - ((steps - first) / width).clamp(0.0, 1.0)


def scale_of_scores(shape: ModelShape) -> float | None:
    """Return what attention multiplies q k by, None for the usual 1 / sqrt(head_dim).

    YaRN multiplies rotated queries and keys by a factor. Every dimension of a head is rotated, so
    scores get its square. megatron-core 0.16.1 has the factor, too, but its fused kernel for packed
    documents leaves it out in silence (rope_utils.py, `apply_rotary_pos_emb`).
    """
    if shape.rope_scaling is None or shape.rope_scaling.attention_factor == 1.0:
        return None
    return shape.rope_scaling.attention_factor**2 / math.sqrt(shape.head_dim)
