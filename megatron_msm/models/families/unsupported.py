"""Model types that are not supported: the nearest one that is, and what is missing. No torch.

Written from knowledge of the families; not checked line by line against transformers.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import NamedTuple


class Nearest(NamedTuple):
    """A supported type, and what another one has beyond it."""

    model_type: str
    missing: str


_MLA = "multi-head latent attention, shared experts and its router"
UNSUPPORTED: Mapping[str, Nearest] = {
    "apertus": Nearest("llama", "an MLP with xIELU and without a gate"),
    "cohere": Nearest("llama", "attention and MLP side by side, layer norms, scaled logits"),
    "cohere2": Nearest("llama", "attention and MLP side by side, layers without rotary embeddings"),
    "deepseek_v2": Nearest("qwen3_moe", _MLA),
    "deepseek_v3": Nearest("qwen3_moe", _MLA),
    "exaone4": Nearest("qwen3", "norms after attention and MLP, window layers"),
    "falcon": Nearest("llama", "attention and MLP side by side, layer norms"),
    "gemma": Nearest("gemma3_text", "layers with two norms, none of queries and keys"),
    "gemma2": Nearest("gemma3_text", "capped scores and logits, no norm of queries and keys"),
    "gemma3": Nearest(
        "gemma3_text", "images; the text model can be saved by itself (docs/architectures.md)"
    ),
    "glm4": Nearest("llama", "norms on both sides, rotation of a part of each head"),
    "glm4_moe": Nearest("qwen3_moe", "shared experts, its router, rotation of a part of each head"),
    "gpt2": Nearest("llama", "learned positions, layer norms, an MLP without a gate"),
    "gpt_neox": Nearest("llama", "attention and MLP side by side, layer norms"),
    "gpt_oss": Nearest("qwen3_moe", "attention sinks, window layers, clamped GLU, MXFP4 weights"),
    "granitemoe": Nearest("granite", "experts, whose tensors are fused"),
    "granitemoehybrid": Nearest("granite", "a fused MLP, experts, state space layers"),
    "internlm2": Nearest("llama", "fused tensors; its class is code in the folder"),
    "llama4": Nearest("qwen3_moe", "shared experts, its router, layers without rotary embeddings"),
    "minimax": Nearest("qwen3_moe", "linear attention"),
    "ministral": Nearest("mistral", "window layers beside full ones"),
    "ministral3": Nearest("mistral", "queries scaled by position"),
    "nemotron": Nearest("llama", "layer norms that add one, an MLP of squared ReLU without a gate"),
    "nemotron_h": Nearest("llama", "state space layers"),
    "olmo": Nearest("llama", "norms without weights, clipped queries, keys and values"),
    "olmoe": Nearest("qwen3_moe", "norms over all heads of q and k"),
    "phi": Nearest("llama", "attention and MLP side by side, biases, a partly rotated head"),
    "phi3": Nearest("llama", "fused tensors, longrope, rotation of a part of each head"),
    "qwen2_moe": Nearest("qwen3_moe", "shared experts with a gate, biases of q, k and v"),
    "qwen2_vl": Nearest("qwen2", "images and rotary embeddings in three dimensions"),
    "qwen2_5_vl": Nearest("qwen2", "images and rotary embeddings in three dimensions"),
    "qwen3_5": Nearest("qwen3", "gated delta net layers, gated attention, images"),
    "qwen3_5_text": Nearest("qwen3", "gated delta net layers, gated attention"),
    "qwen3_next": Nearest("qwen3_moe", "gated delta net layers, gated attention, shared experts"),
    "qwen3_vl": Nearest("qwen3", "images and rotary embeddings in three dimensions"),
    "stablelm": Nearest("llama", "layer norms, rotation of a part of each head"),
    "starcoder2": Nearest("llama", "layer norms, biases, an MLP without a gate"),
}


def explain(model_type: str, supported: Collection[str]) -> str:
    """Say in a sentence which supported type is nearest and what is missing, as far as known."""
    found = UNSUPPORTED.get(model_type)
    if found is not None:
        return f" The nearest is {found.model_type}; what is missing: {found.missing}."
    similar = difflib.get_close_matches(model_type, supported, n=1)
    return f" The nearest name is {similar[0]}; what is missing is not known." if similar else ""
