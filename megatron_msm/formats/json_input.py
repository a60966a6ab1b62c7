"""JSON from the user's files into checked models; every refusal names file, line and field."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.json_types import JsonValue

Model = TypeVar("Model", bound=BaseModel)

MAX_SHOWN_CHARS = 80


@dataclass(frozen=True)
class JsonLine:
    """One parsed line of a JSONL file and where it stands, for messages."""

    where: str
    """`FILE line N`."""
    value: JsonValue


def read_file(path: Path, *, what: str, remedy: str) -> bytes:
    """Return a file's bytes.

    Raises:
        DataFormatError: It is missing, a folder, or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataFormatError(
            f"{path}: cannot read the {what} ({error.strerror}). {remedy}"
        ) from None


def parse_json(content: bytes, *, where: str) -> JsonValue:
    """Parse one JSON document.

    Raises:
        DataFormatError: It is not valid JSON.
    """
    try:
        value: JsonValue = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise DataFormatError(
            f"{where}: invalid JSON ({error}); found {shown(content.decode(errors='replace'))}. "
            "Correct it, or write the file again with the tool that made it."
        ) from None
    return value


def json_lines(content: bytes, *, path: Path) -> Iterator[JsonLine]:
    """Yield every line of a JSONL file; blank lines are passed over.

    Raises:
        DataFormatError: A line is not valid JSON.
    """
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            where = f"{path} line {number}"
            yield JsonLine(where, parse_json(line, where=where))


def check_model(model: type[Model], value: object, *, where: str, remedy: str) -> Model:
    """Return `value` as a `model`.

    Raises:
        DataFormatError: With the first wrong field, what was found in it and what is needed.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "(the whole value)"
        found = "nothing" if first["type"] == "missing" else shown(first["input"])
        raise DataFormatError(
            f"{where}: field `{field}`: {first['msg']}; found {found}. {remedy}"
        ) from None


def shown(value: object) -> str:
    """Return a short form of a value from a file, without control characters."""
    text = json.dumps(value, default=str)  # ASCII only: nothing in it can drive a terminal
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."
