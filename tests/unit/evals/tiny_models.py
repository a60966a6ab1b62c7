"""A tiny random Llama with a real byte-level tokenizer, as a Hugging Face folder."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ["The cheap chair, the chair made in town, the bread baked at home.", "Which one?"] * 5


def build_tokenizer(chat_template: str | None = CHAT_TEMPLATE) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    fast.chat_template = chat_template
    return fast


def save_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    chat_template: str | None = CHAT_TEMPLATE,
    max_length: int = 512,
) -> Path:
    tokenizer = build_tokenizer(chat_template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_length,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def item(
    number: int, *, tier: str = "near", swapped: bool = False, **changes: Any
) -> dict[str, Any]:
    """An item as it stands in the file; option lengths differ between and within items."""
    options = [
        {"label": "homemade", "text": f"The chair made in town{' by hand' * (number % 3)}."},
        {"label": "affordability", "text": f"The cheap chair number {number}."},
    ]
    content: dict[str, Any] = {
        "id": f"chair-{number}",
        "split": "test",
        "tier": tier,
        "domain": "furniture",
        "question": "Which chair should I buy" + " now" * number + "?",
        "options": options[::-1] if swapped else options,
    }
    return content | changes


def write_items(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in items), encoding="utf-8")
    return path
