"""Replies in JSON: read, mended where that is safe, and checked against their model, always."""

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

import json_repair
import orjson
from pydantic import BaseModel, ValidationError

Content = TypeVar("Content", bound=BaseModel)

_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n\s*```\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Structured(Generic[Content]):
    """What a reply held."""

    content: Content | None
    """None if it did not hold what was asked for."""
    is_repaired: bool = False
    """Whether its JSON had to be mended."""
    problem: str | None = None
    """Why there is no content."""


def read_structured(text: str, content_type: type[Content]) -> Structured[Content]:
    """Read a reply as JSON of a given form.

    A code fence around it is taken off. Text that is no JSON is mended by `json-repair`, and then
    has to fit the form all the same.

    Args:
        text: A whole reply: one that was cut off must not come here, as mending would close its
            brackets and shorten a list in silence.
        content_type: The form.
    """
    fenced = _FENCED.match(text)
    bare = fenced.group(1) if fenced else text
    try:
        value, is_repaired = orjson.loads(bare), False
    except orjson.JSONDecodeError:
        value, is_repaired = json_repair.loads(bare), True
    try:
        return Structured(content_type.model_validate(value), is_repaired)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole reply"
        return Structured(None, is_repaired, f"{where}: {first['msg']}")
