"""Byte-level tokenizers with a few merges, made in milliseconds, in the layouts of transformers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CORPUS = (
    "the cheese of the house is made at home and the people are proud of it\n\n",
    "user assistant system tool what is the price of the cheddar, please? end start im",
)


def write_tokenizer(
    folder: Path,
    *,
    special: Sequence[str] = CHATML_TOKENS,
    ordinary: Sequence[str] = (),
    template: str | None = CHATML,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a tokenizer folder as transformers 5 does, and return it.

    Args:
        folder: Where to.
        special: Control tokens; the last one is the eos token.
        ordinary: Added tokens that are not special.
        template: The chat template, or none.
        config: Fields of tokenizer_config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ordinary])
    tokenizer.save(str(folder / "tokenizer.json"))
    fields = {"eos_token": special[-1], "pad_token": special[0]} if config is None else config
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder
