"""Small real objects that many tests share: a tiny Llama, documents and chats."""

import json
from pathlib import Path
from typing import Any

from tests.unit.data_prep.tiny_tokenizer import write_tokenizer


def write_tiny_llama(
    folder: Path, *, dtype: str = "float32", seed: int = 0, **changes: Any
) -> Path:
    """Write a random Llama with every distinguishing size different, and a ChatML tokenizer."""
    import torch
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM

    transformers.utils.logging.disable_progress_bar()
    write_tokenizer(folder)
    vocab_size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    sizes = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 16,
        "vocab_size": vocab_size + 3,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "initializer_range": 0.05,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    return folder


# The class has a token that pads by default, and transformers gives its embedding no gradient.
_NO_PADDING: dict[str, Any] = {"pad_token_id": None, "eos_token_id": None}
# What tells each architecture from the others, switched on; sizes that TP 2 and PP 2 can split.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "tie_word_embeddings": True,
        "head_dim": 24,
        "query_pre_attn_scalar": 20,
        # Shorter than most documents of the tests; the other layers see all.
        "sliding_window": 7,
        "sliding_window_pattern": 2,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        },
        **_NO_PADDING,
    },
    "granite": {
        "tie_word_embeddings": True,
        "mlp_bias": True,
        "embedding_multiplier": 7.0,
        "attention_multiplier": 0.9,
        "residual_multiplier": 0.3,
        "logits_scaling": 3.0,
    },
    "llama": {
        "tie_word_embeddings": True,
        # A stretch that shows in short documents: some wavelengths stay, some are interpolated.
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "mistral": {
        "sliding_window": 64,
        "head_dim": 12,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    },
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 3},
    "olmo2": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "attention_bias": True,
        **_NO_PADDING,
    },
    "olmo3": {
        "sliding_window": 7,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        **_NO_PADDING,
    },
    "qwen2": {"tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": 8},
    "qwen3": {"head_dim": 24},
    "qwen3_moe": {
        "head_dim": 24,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 20,
        "norm_topk_prob": True,
    },
    "smollm3": {
        "tie_word_embeddings": True,
        "no_rope_layer_interval": 2,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        **_NO_PADDING,
        "bos_token_id": None,
    },
}


YARN: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


def write_tiny_model(
    folder: Path, model_type: str, *, dtype: str = "float32", seed: int = 0, **changes: Any
) -> Path:
    """Write a random model of `ARCHITECTURES` in which no weight is a trivial zero or one."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    transformers.utils.logging.disable_progress_bar()
    write_tokenizer(folder)
    vocab_size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocab_size + 3,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,
    }
    config: Any = AutoConfig.for_model(
        model_type, **{**sizes, **ARCHITECTURES[model_type], **changes}
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms start at one, biases at zero
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tiny_documents(num: int) -> list[dict[str, Any]]:
    """Return documents of varying length."""
    return [
        {"id": f"d{i}", "text": f"Document {i}. " + "The cheese is local. " * (1 + i % 7)}
        for i in range(num)
    ]


def tiny_chats(num: int) -> list[dict[str, Any]]:
    """Return short chats of one or two exchanges."""
    exchange = [
        {"role": "user", "content": "Which cheese?"},
        {"role": "assistant", "content": "Colby, please."},
    ]
    return [{"id": f"c{i}", "messages": exchange * (1 + i % 2)} for i in range(num)]
