"""What a model is asked, from a file: one JSON object a line, each with an id of its own."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.json_input import check_model, json_lines, read_file

NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

LEAST_FOR_INTERVAL = 2
"""An interval over items needs a spread."""


class Item(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: NonEmpty
    """Results are matched by it."""


ItemForm = TypeVar("ItemForm", bound=Item)


@dataclass(frozen=True)
class ItemFile(Generic[ItemForm]):
    """The items of a file."""

    path: Path
    sha256: str
    """Hash of the whole file."""
    items: tuple[ItemForm, ...]
    where: tuple[str, ...]
    """`FILE line N` of each item, for messages."""


def read_item_file(form: type[ItemForm], path: Path, *, remedy: str) -> ItemFile[ItemForm]:
    """Read and check a file of items.

    Args:
        form: What a line must be.
        path: Of the file.
        remedy: The fields that a line needs, for messages.

    Raises:
        DataFormatError: It is missing, empty, broken, or names an id twice.
    """
    content = read_file(path, what="items", remedy=f"Give a JSONL file. {remedy}")
    items: list[ItemForm] = []
    where_of: dict[str, str] = {}
    for line in json_lines(content, path=path):
        item = check_model(form, line.value, where=line.where, remedy=remedy)
        if item.id in where_of:
            raise DataFormatError(
                f"{line.where}: field `id`: {item.id!r} was used before, at {where_of[item.id]}. "
                "Results are matched by id: give each line its own."
            )
        where_of[item.id] = line.where
        items.append(item)
    if not items:
        raise DataFormatError(f"{path}: the file is empty. {remedy}")
    digest = hashlib.sha256(content).hexdigest()
    return ItemFile(path, digest, tuple(items), tuple(where_of.values()))


def check_enough(file: ItemFile[ItemForm], *, remedy: str) -> None:
    """Check that an interval can be computed over the items.

    Raises:
        DataFormatError: There is only one.
    """
    if len(file.items) < LEAST_FOR_INTERVAL:
        raise DataFormatError(
            f"{file.path}: {len(file.items)} line, and an interval needs at least "
            f"{LEAST_FOR_INTERVAL}. {remedy}"
        )
