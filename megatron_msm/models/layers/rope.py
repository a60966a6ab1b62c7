"""Frequencies of rotary embeddings that were stretched for longer sequences.

megatron-core 0.16.1 knows the `llama3` kind with fixed settings only (low 1, high 4, 8192 original
positions: rotary_pos_embedding.py, `_apply_scaling`), so the frequencies are computed here and
put into its module.
"""

import math

import torch

from megatron_msm.models.shape import ModelShape, RopeScaling


def stretched_frequencies(shape: ModelShape, scaling: RopeScaling) -> torch.Tensor:
    """Return the inverse frequencies, float32 [head_dim / 2], on the CPU.

    Source: transformers 5.24, modeling_rope_utils.py, `_compute_linear_scaling_rope_parameters` and
    `_compute_llama3_parameters`: wavelengths that fit often into the original length stay, those
    that do not fit are multiplied by `factor`, between the two the result is interpolated.
    """
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    frequencies = 1.0 / shape.rope_theta**exponents
    stretched = frequencies / scaling.factor
    if scaling.kind == "linear":
        return stretched
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share_kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - share_kept) * stretched + share_kept * frequencies
