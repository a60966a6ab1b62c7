"""What a user reads of a configuration that is wrong: file, line, field, and what to write instead.

pydantic tells of every field that failed and of each list around it, and of a misspelt key twice:
as one too many and as one missing. Here each mistake is told once.
"""

import difflib
import io
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

KeyPath: TypeAlias = tuple[int | str, ...]
"""Keys and list positions from the whole to a field."""
# What a check of the whole says of one of its fields: `midtrain.duration: give steps or tokens`.
_OF_FIELD = re.compile(r"([A-Za-z_]\w*(?:\.[\w-]+)*): (.+)", flags=re.DOTALL)


class Problem(NamedTuple):
    """A field that is wrong, and what is wrong with it."""

    at: KeyPath
    text: str


def problems_of(error: ValidationError, config_type: type[BaseModel]) -> list[Problem]:
    """Return the mistakes behind an error, each once."""
    found = error.errors()
    places = [problem["loc"] for problem in found]
    meant = {
        (*problem["loc"][:-1], nearest)
        for problem in found
        if problem["type"] == "extra_forbidden"
        for nearest in _nearest(problem["loc"], config_type)
    }
    problems: list[Problem] = []
    for problem in found:
        at, kind = problem["loc"], problem["type"]
        if any(at == other[: len(at)] and at != other for other in places):
            continue  # what is around a wrong field
        if kind == "extra_forbidden":
            problems.append(Problem(at, f"unknown key. {_known_keys(at, config_type)}"))
        elif kind == "missing":
            problems += [Problem(at, "required, but missing.")] if at not in meant else []
        elif kind == "value_error" and not at:
            text = problem["msg"].removeprefix("Value error, ")
            problems += [_of_field(line) for line in text.split("\n")]
        else:
            text = problem["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(problem["input"], dict) else f" Found {problem['input']!r}."
            problems.append(Problem(at, f"{text}.{shown}"))
    return problems


def _of_field(text: str) -> Problem:
    if of_field := _OF_FIELD.fullmatch(text):
        return Problem(tuple(of_field[1].split(".")), f"{of_field[2].removesuffix('.')}.")
    return Problem((), f"{text}.")


def as_override(at: KeyPath, content: object) -> str:
    """Return a field's path as overrides take it: elements of lists by their `name`."""
    words = []
    for key in at:
        element = content[key] if isinstance(content, list) and isinstance(key, int) else None
        name = element.get("name") if isinstance(element, dict) else None
        words.append(str(name or key))
        content = element if element is not None else _child(content, key)
    return ".".join(words) or "(whole file)"


def _child(content: object, key: int | str) -> object:
    return content.get(key) if isinstance(content, dict) else None


def lines_of(text: str) -> Mapping[KeyPath, int]:
    """Return the line, from 1, of every key and list element of a YAML text."""
    try:
        node = YAML(pure=True).compose(io.StringIO(text))
    except YAMLError:
        return {}
    return dict(_lines(node, ())) if node is not None else {}


def _lines(node: Node, at: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield (*at, key.value), key.start_mark.line + 1
            yield from _lines(value, (*at, key.value))
    elif isinstance(node, SequenceNode):
        for position, value in enumerate(node.value):
            yield (*at, position), value.start_mark.line + 1
            yield from _lines(value, (*at, position))


def nearest_line(at: KeyPath, lines: Mapping[KeyPath, int]) -> int | None:
    """Return the line of a field, or of the section in which it is missing."""
    for length in range(len(at), 0, -1):
        if at[:length] in lines:
            return lines[at[:length]]
    return None


def _nearest(at: KeyPath, config_type: type[BaseModel]) -> list[str]:
    return difflib.get_close_matches(str(at[-1]), _valid_keys(at, config_type), n=1)


def _known_keys(at: KeyPath, config_type: type[BaseModel]) -> str:
    hint = "".join(f"Did you mean {name!r}? " for name in _nearest(at, config_type))
    return f"{hint}Valid keys: {', '.join(_valid_keys(at, config_type))}."


def _valid_keys(at: KeyPath, config_type: type[BaseModel]) -> list[str]:
    model = config_type
    for part in at[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = _section_type(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _section_type(annotation: object) -> type[BaseModel] | None:
    """Return the section model inside a field's annotation, such as `tuple[Phase, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_type(argument)
        if found:
            return found
    return None
