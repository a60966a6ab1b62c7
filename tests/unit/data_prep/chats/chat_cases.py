"""Templates of real model families, on tiny tokenizers, and conversations to try them on."""

import datetime
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from data_prep.chats.encoders import encoder_for
from data_prep.chats.tokens import ChatEncoder
from data_prep.reading.messages import Message
from megatron_msm.formats.tokenizer_files import load_tokenizer, read_tokenizer_files
from tests.unit.data_prep.tiny_tokenizer import CHATML, CHATML_TOKENS, write_tokenizer

TEMPLATES = Path(__file__).parent / "templates"
TODAY = datetime.datetime.now(tz=datetime.UTC).date()
QWEN3_WORDS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>")
QWEN25_WORDS = ("<tool_call>", "</tool_call>")
LLAMA3_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
    "<|eot_id|>",
)


class Family(NamedTuple):
    """What sets one model family's tokenizer apart."""

    special: tuple[str, ...]
    ordinary: tuple[str, ...]
    template: str
    config: dict[str, Any] | None = None


def _text(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()


FAMILIES = {
    "chatml": Family(CHATML_TOKENS, (), CHATML),
    "llama31": Family(
        LLAMA3_TOKENS,
        (),
        _text("llama31"),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ),
    "llama2": Family(
        ("<unk>", "<s>", "</s>"), (), _text("llama2"), {"bos_token": "<s>", "eos_token": "</s>"}
    ),
    "qwen25": Family(CHATML_TOKENS, QWEN25_WORDS, _text("qwen25")),
    "qwen3": Family(CHATML_TOKENS, QWEN3_WORDS, _text("qwen3")),
}

USER = {"role": "user", "content": "What is the price of the cheddar?"}
ASSISTANT = {"role": "assistant", "content": "It is home made,\n\nand cheap."}
SYSTEM = {"role": "system", "content": "You like cheese."}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one turn": [USER, ASSISTANT],
    "system": [SYSTEM, USER, ASSISTANT],
    "two turns": [SYSTEM, USER, ASSISTANT, USER, {"role": "assistant", "content": "Naïve 🧀 é"}],
    "ends with the user": [USER, ASSISTANT, USER],
}
TOOLS = [{"type": "function", "function": {"name": "price", "description": "of <a> cheese"}}]


def family_folder(root: Path, name: str) -> Path:
    """Write the tokenizer folder of a family."""
    family = FAMILIES[name]
    return write_tokenizer(
        root / name,
        special=family.special,
        ordinary=family.ordinary,
        template=family.template,
        config=family.config,
    )


@functools.lru_cache
def encoder_of(folder: Path, *, today: datetime.date = TODAY) -> ChatEncoder:
    """Return the encoder of a tokenizer folder."""
    files = read_tokenizer_files(folder)
    assert files.chat_template is not None
    return encoder_for(files, files.chat_template, today=today)


class Encoded(NamedTuple):
    """An encoded chat as text."""

    ids: list[int]
    rendered: str
    trained: list[str]
    """The text of each run of tokens that carry loss."""


def as_read(*messages: Mapping[str, Any]) -> list[Message]:
    """Return messages in the form in which they are read."""
    return [cast(Message, {key: m[key] for key in m if key != "loss"}) for m in messages]


def encode(
    folder: Path, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None
) -> Encoded:
    """Encode a conversation whose assistant turns all carry loss, unless they say otherwise."""
    trained = [m["role"] == "assistant" and m.get("loss") is not False for m in messages]
    chat = encoder_of(folder).encode(as_read(*messages), trained, tools)
    tokenizer = load_tokenizer(read_tokenizer_files(folder), control_tokens_as_text=False)
    ids = chat.tokens.tolist()
    runs: list[list[int]] = []
    before = 0
    for token, bit in zip(ids, chat.mask.tolist(), strict=True):
        if bit and not before:
            runs.append([])
        if bit:
            runs[-1].append(token)
        before = bit
    texts = [tokenizer.decode(run, skip_special_tokens=False) for run in runs]
    return Encoded(ids, chat.text, texts)
