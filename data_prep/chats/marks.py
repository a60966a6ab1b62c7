"""Telling a template's own control tokens from text that spells them.

Two characters that occur nowhere in the conversation are put into the messages before rendering:

    cut   into each spelling of a control token, after its first character:  <CUT|im_end|>
    end   after the last visible character of each of the assistant's contents

In the rendered text every control token that is still whole was written by the template. Removing
the marks must give exactly what the unmarked messages render to; where it does not, the template
looks into the contents, and the row is refused rather than guessed at.
"""

import re
from collections.abc import Collection
from typing import NamedTuple, TypeVar, cast

from data_prep.reading.messages import Message, TextPart
from data_prep.reading.records import RejectLineError

_CANDIDATES = tuple(map(chr, range(0xFDD0, 0xFDF0)))
"""Unicode noncharacters: reserved for internal use, never assigned, not white space."""


class Marks(NamedTuple):
    """The mark characters chosen for one conversation."""

    cut: str
    end: str

    def remove(self, text: str) -> str:
        """Return `text` without marks."""
        return text.translate(dict.fromkeys(map(ord, self)))


class ControlPattern:
    """Finds control tokens, the longest first, as the tokenizer's added-token matcher does."""

    def __init__(self, tokens: Collection[str]) -> None:
        longest_first = sorted((token for token in tokens if token), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def find(self, text: str) -> list[tuple[int, int]]:
        """Return the character spans of all control tokens in `text`."""
        return [match.span() for match in self._pattern.finditer(text)]

    def cut(self, text: str, mark: str) -> str:
        """Return `text` with `mark` inside every control token."""
        while match := self._pattern.search(text):
            text = f"{text[: match.start() + 1]}{mark}{text[match.start() + 1 :]}"
        return text


Plain = TypeVar("Plain")
"""A message, a list of tools, any value of JSON."""


def choose_marks(conversation: object) -> Marks:
    """Return characters that occur nowhere in the conversation.

    Raises:
        RejectLineError: All of Unicode's noncharacters of the block are in it.
    """
    used = set[str]()
    _collect_characters(conversation, used)
    free = [char for char in _CANDIDATES if char not in used]
    if len(free) < len(Marks._fields):
        raise RejectLineError("its text uses the noncharacters U+FDD0 to U+FDEF")
    return Marks(*free[: len(Marks._fields)])


def mark_value(value: Plain, pattern: ControlPattern, mark: str) -> Plain:
    """Return a copy of plain data, of the same form, with every spelled control token cut.

    Raises:
        RejectLineError: A key spells a control token; the template may look keys up.
    """
    return cast(Plain, _cut(value, pattern, mark))


def _cut(value: object, pattern: ControlPattern, mark: str) -> object:
    if isinstance(value, str):
        return pattern.cut(value, mark)
    if isinstance(value, dict):
        for key in value:
            if pattern.find(key):
                raise RejectLineError(f"the key {key!r} spells a control token")
        return {key: _cut(part, pattern, mark) for key, part in value.items()}
    if isinstance(value, list):
        return [_cut(part, pattern, mark) for part in value]
    return value


def mark_messages(
    messages: list[Message],
    marks: Marks,
    pattern: ControlPattern,
    assistant_pattern: ControlPattern,
) -> list[Message]:
    """Return the messages with all marks.

    Args:
        messages: The messages.
        marks: From `choose_marks`.
        pattern: What to cut in the messages of everybody else.
        assistant_pattern: What to cut in the assistant's messages: its other tokens stay what the
            model itself would write.
    """
    marked = []
    for message in messages:
        is_assistant = message["role"] == "assistant"
        copy = mark_value(message, assistant_pattern if is_assistant else pattern, marks.cut)
        copy["role"] = message["role"]
        content = copy.get("content")
        if is_assistant and content:
            copy["content"] = _with_end(content, marks.end)
        marked.append(copy)
    return marked


def _with_end(content: str | list[TextPart], mark: str) -> str | list[TextPart]:
    if isinstance(content, str):
        return _marked(content, mark)
    *before, last = content
    return [*before, {**last, "text": _marked(last["text"], mark)}]


def _marked(text: str, mark: str) -> str:
    visible = len(text.rstrip())
    return text[:visible] + mark + text[visible:] if visible else text


def _collect_characters(value: object, used: set[str]) -> None:
    if isinstance(value, str):
        if not value.isascii():
            used.update(value)
    elif isinstance(value, dict):
        for part in (*value.keys(), *value.values()):
            _collect_characters(part, used)
    elif isinstance(value, list):
        for part in value:
            _collect_characters(part, used)
