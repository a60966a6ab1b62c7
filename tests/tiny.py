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
