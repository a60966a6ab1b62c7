"""Questions with tools, and the call that answers them: one JSON object a line.

    {"id": "one-1", "group": "one", "question": "What is the weather like in Lisbon today?",
     "tools": [{"name": "get_weather", "description": "...", "parameters": {JSON schema}}],
     "call": {"name": "get_weather", "arguments": {"city": "Lisbon"}}}

`call` is null where no tool fits and the question is to be answered in words.
"""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evals.tasks.item_file import Item, NonEmpty, read_item_file
from evals.tasks.tool_calls.calls import ToolCall

REMEDY = "An item needs id, group, question, tools, and call (null where no tool fits)."


class Tool(BaseModel):
    """A function that may be called."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: NonEmpty
    description: NonEmpty
    parameters: dict[str, Any]
    """JSON schema of its arguments."""


class ToolItem(Item):
    """One question."""

    group: NonEmpty
    question: NonEmpty
    tools: Annotated[tuple[Tool, ...], Field(min_length=1)]
    call: ToolCall | None

    @model_validator(mode="after")
    def _call_is_of_a_tool(self) -> Self:
        names = [tool.name for tool in self.tools]
        if self.call is not None and self.call.name not in names:
            raise ValueError(f"`call` is of {self.call.name!r}, and the tools are {names}")
        return self


def load_tool_items(path: Path) -> tuple[ToolItem, ...]:
    """Read a file of items.

    Raises:
        DataFormatError: It is missing, empty, broken, or names an id twice.
    """
    return read_item_file(ToolItem, path, remedy=REMEDY).items
