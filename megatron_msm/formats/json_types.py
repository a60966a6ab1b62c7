"""The types of JSON: what was read from a file, and what can be written to one."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pydantic import JsonValue as JsonValue

JsonObject: TypeAlias = dict[str, JsonValue]
"""A parsed object. Its values are narrowed with `isinstance` where they are used."""
JsonData: TypeAlias = (
    "Mapping[str, JsonData] | Sequence[JsonData] | str | bool | int | float | None"
)
"""What can be written as JSON. It is only read, so a `dict[str, int]` is one too."""
JsonRow: TypeAlias = Mapping[str, JsonData]
"""What is written as one object."""


def as_objects(value: JsonValue) -> list[JsonObject] | None:
    """Return a list whose members are all objects; None for anything else."""
    if not isinstance(value, list):
        return None
    objects = [member for member in value if isinstance(member, dict)]
    return objects if len(objects) == len(value) else None
