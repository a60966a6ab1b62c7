"""Floating point operations of training: the formula of NVIDIA's published figures. No torch.

Forward and backward of one token, for L layers of hidden size h, query width q, key/value width k,
MLP width f, V vocabulary and sequences of s positions:

    6 (L (2 h q + 2 h k + 3 h f) + h V)  +  6 L q s
    linear layers and LM head               attention, causal: half of all pairs

In a layer with a window of w < s positions a token has w - w^2 / 2s pairs in the mean, not s / 2.

Counted: what the mathematics needs. Not counted: the embedding's look-up, recomputed activations,
padding of the vocabulary, norms, the optimizer. With LoRA the frozen weights get no gradient, which
saves a third of the linear term (4 in place of 6); the adapters' own work is under two percent and
is left out, as in the published figures.

Tools that count all pairs (Megatron-LM's README, torchtitan, NeMo until 25.07) report more for the
same speed: 12.5 % for Llama 8B at 8,192 positions.

Source: Megatron-Bridge 067f987, training/utils/flop_utils.py `transformer_flops`.
"""

from dataclasses import dataclass

from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.gpus import Gpu, MatmulPrecision


def linear_flops_per_token(shape: ModelShape, *, lora: bool = False) -> float:
    """Return forward and backward FLOPs of the linear layers and the LM head."""
    query = shape.num_attention_heads * shape.head_dim
    key = shape.num_query_groups * shape.head_dim
    layer = shape.hidden_size * (2 * query + 2 * key + 3 * shape.active_ffn_hidden_size)
    weights = shape.num_layers * layer + shape.hidden_size * shape.vocab_size
    return (4.0 if lora else 6.0) * weights


def attention_flops_per_token(shape: ModelShape, context: float) -> float:
    """Return forward and backward FLOPs of causal attention: the pairs that are seen count.

    Args:
        shape: The model.
        context: Length of the sequences; for packed documents the mean of their squared lengths
            divided by the mean of their lengths.
    """
    query = shape.num_attention_heads * shape.head_dim
    windows = (shape.attention_of(layer).window for layer in range(shape.num_layers))
    return 6.0 * query * sum(_twice_the_pairs(context, window) for window in windows)


def _twice_the_pairs(context: float, window: int | None) -> float:
    if window is None or window >= context:
        return context
    return window * (2 - window / context)


def flops_per_token(shape: ModelShape, context: float, *, lora: bool = False) -> float:
    """Return the FLOPs of one trained token, forward and backward; see the module's formula."""
    return linear_flops_per_token(shape, lora=lora) + attention_flops_per_token(shape, context)


@dataclass(frozen=True)
class Utilization:
    """Model FLOPs per second of one GPU, as a share of a named peak (MFU)."""

    tflops_per_s: float
    share: float
    peak: str
    """Which peak it is a share of: `989 TFLOP/s, bf16, H100 SXM 80GB`."""


def utilization(
    tokens_per_s_per_gpu: float, flops_of_token: float, gpu: Gpu, precision: MatmulPrecision
) -> Utilization:
    """Return what a speed means on a GPU that has a peak for `precision`."""
    peak = gpu.peak_tflops[precision]
    reached = tokens_per_s_per_gpu * flops_of_token / 1e12
    return Utilization(reached, reached / peak, f"{peak:.0f} TFLOP/s, {precision}, {gpu.name}")
