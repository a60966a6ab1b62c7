"""Tool calls in a reply, in the forms that chat templates teach.

<tool_call>{"name": ..., "arguments": {...}}</tool_call>      Qwen, Hermes, SmolLM3
[TOOL_CALLS][{"name": ..., "arguments": {...}}]               Mistral
{"name": ..., "parameters": {...}}                            Llama 3, as the whole reply
"""

import re
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from evals.tasks.sampling.reasoning import without_reasoning

_BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_MISTRAL = "[TOOL_CALLS]"
_PYTHON_TAG = "<|python_tag|>"


class ToolCall(BaseModel):
    """A function and what it is called with."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    arguments: dict[str, Any]

    def is_like(self, other: "ToolCall") -> bool:
        """Return whether it does the same: texts may differ in case and in space around them."""
        return self.name == other.name and _plain(self.arguments) == _plain(other.arguments)


class Calls(NamedTuple):
    """What a reply calls."""

    read: tuple[ToolCall, ...]
    num_malformed: int
    """Calls that no program could carry out."""


def read_calls(reply: str) -> Calls:
    """Return the calls of a reply; those in its reasoning are none."""
    text = without_reasoning(reply).strip()
    if _MISTRAL in text:
        return _parsed([text.partition(_MISTRAL)[2]])
    if "<tool_call>" in text:
        return _parsed(_BLOCK.findall(text))
    bare = text.removeprefix(_PYTHON_TAG).strip()
    if text.startswith(_PYTHON_TAG) or (bare.startswith("{") and '"name"' in bare):
        return _parsed([bare])
    return Calls((), 0)


def _parsed(texts: list[str]) -> Calls:
    found = [_call(text) for text in texts]
    read = [call for calls in found if calls is not None for call in calls]
    return Calls(tuple(read), sum(calls is None for calls in found))


def _call(text: str) -> list[ToolCall] | None:
    try:
        value = orjson.loads(text.strip())
        values = value if isinstance(value, list) else [value]
        return [
            ToolCall(name=one["name"], arguments=one.get("arguments", one.get("parameters")))
            for one in values
        ]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValidationError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip().casefold()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    # True equals 1 in Python, and does not in JSON.
    return (isinstance(value, bool), value)
