"""Whether all that an assistant's message says is in its turn.

A template may leave out what it does not know: tool calls, reasoning, the part of a content before
`</think>`. A turn without them would teach the model to answer without them, so each part is looked
for in the turn's own characters, and found characters are not found twice.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from data_prep.chats.marks import ControlPattern
from data_prep.chats.spelling import text_of
from data_prep.reading.messages import REASONING_FIELDS, Message
from megatron_msm.formats.json_types import JsonValue

_THINK_TAGS = re.compile(r"</?think>")


class _Part(NamedTuple):
    where: str
    spellings: tuple[str, ...]
    """Any of them will do: a value is written as text or as JSON."""


def missing_part(message: Message, turn: str, markup: ControlPattern) -> str | None:
    """Return where in the message something stands that the turn does not say; None: all is there.

    Args:
        message: An assistant's message.
        turn: What the template writes for it, up to the end-of-turn token.
        markup: The tokenizer's added tokens: a template may write those of a content otherwise
            than they stand there, so what is between them is looked for.
    """
    rest = turn
    parts = sorted(_parts(message, markup), key=lambda part: -max(map(len, part.spellings)))
    for where, spellings in parts:
        for spelling in spellings:
            at = rest.find(spelling)
            if at >= 0:
                rest = f"{rest[:at]}\0{rest[at + len(spelling) :]}"
                break
        else:
            return where
    return None


def _parts(message: Message, markup: ControlPattern) -> Iterator[_Part]:
    for text in _between_tags(text_of(message), markup):
        yield _Part("content", (text,))
    told = dict.fromkeys(message[name].strip() for name in REASONING_FIELDS if name in message)
    for reasoning in told:
        name = next(name for name in REASONING_FIELDS if name in message)
        for text in _between_tags(reasoning, markup):
            yield _Part(name, (text,))
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        where = f"tool_calls[{index}].function"
        yield _Part(f"{where}.name", (function["name"],))
        yield from _values(function.get("arguments"), f"{where}.arguments")


def _between_tags(text: str, markup: ControlPattern) -> Iterator[str]:
    at = 0
    tags = [*markup.find(text), *(match.span() for match in _THINK_TAGS.finditer(text))]
    for start, end in [*sorted(tags), (len(text), len(text))]:
        piece = text[at:start].strip()
        if piece:
            yield piece
        at = max(at, end)


def _values(value: JsonValue, where: str) -> Iterator[_Part]:
    """Yield every key and every value at any depth."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield _Part(f"{where}.{key}", _spellings_of_text(key))
            yield from _values(part, f"{where}.{key}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _values(part, f"{where}[{index}]")
    elif isinstance(value, str):
        if value.strip():
            yield _Part(where, _spellings_of_text(value))
    elif value is not None:
        yield _Part(where, tuple(dict.fromkeys((json.dumps(value), str(value)))))


def _spellings_of_text(text: str) -> tuple[str, ...]:
    as_json = (json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return tuple(dict.fromkeys((text, text.strip(), *as_json)))
