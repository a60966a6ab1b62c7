"""The messages of a conversation in the one form that templates and everything behind them read."""

from typing import Literal, NotRequired, TypedDict

from megatron_msm.formats.json_types import JsonObject

ReasoningField = Literal["reasoning_content", "reasoning", "thinking"]
REASONING_FIELDS: tuple[ReasoningField, ...] = ("reasoning_content", "reasoning", "thinking")
"""Names under which chat formats keep an assistant's reasoning beside its content."""


class TextPart(TypedDict):
    """A part of a content, for templates that want a content in parts."""

    type: Literal["text"]
    text: str


class CalledFunction(TypedDict):
    """The function that a tool call names."""

    name: str
    arguments: NotRequired[JsonObject | str]
    """JSON text only for templates that want it so."""


class ToolCall(TypedDict):
    """One call of a tool; it may have an `id` and a `type` too."""

    function: CalledFunction


class Message(TypedDict):
    """One message; it may have further keys, which a chat template may read."""

    role: str
    content: NotRequired[str | list[TextPart] | None]
    """In parts only for templates that want it so; null beside tool calls."""
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
