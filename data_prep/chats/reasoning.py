"""Reasoning in assistant messages: kept, or stripped, from the same rows.

`--think keep` and `--think strip` make two datasets whose rows are aligned: row k of both comes
from the same line. So both refuse what either would refuse, and the longer form must fit. The form
that is not wanted is judged without `--template-arg`, as `enable_thinking=false` suits only one.
"""

import re
from typing import Final, Literal

from data_prep.reading.messages import Message
from data_prep.reading.records import RejectLineError

Reasoning = Literal["keep", "strip"]
_OPEN, _CLOSE = "<think>", "</think>"
_BLOCK = re.compile(f"{_OPEN}(.*?){_CLOSE}\\s*", re.DOTALL)
_REASONING_FIELD: Final = "reasoning_content"
"""Where some chat formats (Qwen3's template) take the reasoning from."""


def has_reasoning(messages: list[Message]) -> bool:
    """Whether an assistant message has a part of a `<think>` block, or a field of reasoning."""
    return any(
        message["role"] == "assistant"
        and (
            _REASONING_FIELD in message
            or any(tag in (message.get("content") or "") for tag in (_OPEN, _CLOSE))
        )
        for message in messages
    )


def without_reasoning(messages: list[Message]) -> list[Message]:
    """Return the conversation with every closed `<think>` block of the assistant taken out.

    Raises:
        RejectLineError: A block is not closed or not opened, or nothing is left of a message.
    """
    return [
        _stripped(message, f"messages[{index}]") if message["role"] == "assistant" else message
        for index, message in enumerate(messages)
    ]


def _stripped(message: Message, where: str) -> Message:
    rest = message.copy()
    rest.pop(_REASONING_FIELD, None)
    content = message.get("content")
    if content is None:
        return rest
    assert isinstance(content, str), "parts are made of it later, for the template"
    if any(_OPEN in block for block in _BLOCK.findall(content)):
        raise RejectLineError(f"{where}.content opens {_OPEN} inside {_OPEN}")
    visible = _BLOCK.sub("", content)
    for tag, other in ((_OPEN, _CLOSE), (_CLOSE, _OPEN)):
        if tag in visible:
            raise RejectLineError(f"{where}.content has {tag} without {other}")
    if not visible.strip() and not message.get("tool_calls"):
        raise RejectLineError(f"{where}.content has nothing after its {_OPEN} block")
    return {**rest, "content": visible}
