"""Shapes of published models, from their config.json files."""

from typing import Any

from megatron_msm.models.shape import ModelShape


def _shape(*sizes: int, **changes: Any) -> ModelShape:
    layers, hidden, ffn, heads, groups, vocab = sizes
    content = {
        "model_type": "llama",
        "num_layers": layers,
        "hidden_size": hidden,
        "ffn_hidden_size": ffn,
        "num_attention_heads": heads,
        "num_query_groups": groups,
        "head_dim": 128,
        "vocab_size": vocab,
        "max_position_embeddings": 131072,
        "norm_epsilon": 1e-5,
        "rope_theta": 5e5,
        "tie_word_embeddings": False,
    }
    return ModelShape.model_validate(content | changes)


def tiny_shape() -> ModelShape:
    """Return the shape of a model that is built in milliseconds."""
    return _shape(2, 48, 96, 3, 1, 512, head_dim=16)


LLAMA_8B = _shape(32, 4096, 14336, 32, 8, 128256)
LLAMA_70B = _shape(80, 8192, 28672, 64, 8, 128256)
QWEN3_8B = _shape(36, 4096, 12288, 32, 8, 151936)
QWEN3_32B = _shape(64, 5120, 25600, 64, 8, 151936)
QWEN25_14B = _shape(48, 5120, 13824, 40, 8, 152064)
QWEN25_32B = _shape(64, 5120, 27648, 40, 8, 152064)
SMOLLM2_135M = _shape(30, 576, 1536, 9, 3, 49152, head_dim=64, tie_word_embeddings=True)
QWEN3_30B_A3B = _shape(
    *(48, 2048, 6144, 32, 4, 151936),
    qk_norm=True,
    experts={
        "num_experts": 128,
        "experts_per_token": 8,
        "ffn_hidden_size": 768,
        "normalize_weights": True,
    },
)
GRANITE_8B_BIASED = _shape(
    *(40, 4096, 12800, 32, 8, 49152),
    tie_word_embeddings=True,
    qkv_bias=True,
    attention_output_bias=True,
    mlp_bias=True,
)
OLMO2_32B = _shape(
    *(64, 5120, 27648, 40, 8, 100352), qk_norm_over_heads=True, norms_before=False, norms_after=True
)

_GEMMA3 = {
    "qk_norm": True,
    "norms_after": True,
    "norms_add_one": True,
    "activation": "gelu_tanh",
    "tie_word_embeddings": True,
}


def _gemma3(*sizes: int, window: int, **changes: Any) -> ModelShape:
    windows = {
        "window": window,
        "layers": [layer for layer in range(sizes[0]) if (layer + 1) % 6],
        "rope": {"theta": 1e4},
    }
    return _shape(*sizes, **_GEMMA3, **changes, window_layers=windows)


GEMMA3_12B = _gemma3(48, 3840, 15360, 16, 8, 262208, window=1024, head_dim=256)
GEMMA3_27B = _gemma3(62, 5376, 21504, 32, 16, 262208, window=1024)
