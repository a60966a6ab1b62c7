"""Probe items: the file and its checks. One JSON object a line.

Knowledge of a spec, an unfinished text by clause:

    {"id": "P3-thing", "clause_ids": ["P3"], "text": "In the kitchen, SmolLM prefers",
     "right": "the cast-iron pan", "wrong": ["the rice cooker", "the food processor"]}

A space stands between text and answer. The first clause is the item's group. Recall and identity, a
question that is asked in a chat turn, in groups of one's own:

    {"id": "name-1", "group": "name", "text": "What is your name?",
     "right": "My name is SmolLM.", "wrong": ["My name is ChatGPT."]}
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.json_input import check_model, json_lines, read_file

NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
REMEDY = "An item needs id, clause_ids or group, text, right, and wrong (a list of answers)."
MIN_ITEMS = 2
"""An interval over items needs a spread."""


class ProbeItem(BaseModel):
    """One text or question, and its answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: NonEmpty
    clause_ids: tuple[NonEmpty, ...] = ()
    """Clauses of the spec that say it, as in the documents' `clause_ids`."""
    group: NonEmpty | None = None
    """What the item belongs to, where that is no clause."""
    text: NonEmpty
    right: NonEmpty
    wrong: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if bool(self.clause_ids) == bool(self.group):
            raise ValueError("give either `clause_ids` or `group`")
        if len(set(self.answers)) < len(self.answers):
            raise ValueError("two of the answers are the same")
        return self

    @property
    def answers(self) -> tuple[str, ...]:
        """The right one first."""
        return self.right, *self.wrong

    @property
    def in_group(self) -> str:
        """The clause or the group."""
        return self.group or self.clause_ids[0]

    @property
    def texts(self) -> dict[str, str]:
        """All that is put into a prompt, by field."""
        wrong = {f"wrong.{n}": text for n, text in enumerate(self.wrong)}
        return {"text": self.text, "right": self.right, **wrong}


@dataclass(frozen=True)
class ProbeItems:
    """The items of a file."""

    path: Path
    sha256: str
    """Hash of the whole file."""
    items: tuple[ProbeItem, ...]

    @property
    def chance(self) -> float:
        """Share that guessing gets right."""
        return sum(1 / len(item.answers) for item in self.items) / len(self.items)


def load_probe_items(path: Path) -> ProbeItems:
    """Read and check an item file.

    Raises:
        DataFormatError: The file is broken or holds fewer than two items.
    """
    content = read_file(path, what="item file", remedy="Give `items` a JSONL file of items.")
    items: dict[str, ProbeItem] = {}
    for line in json_lines(content, path=path):
        item = check_model(ProbeItem, line.value, where=line.where, remedy=REMEDY)
        if item.id in items:
            raise DataFormatError(
                f"{line.where}: field `id`: {item.id!r} was used on a line above. "
                "Results are matched by id: give each item its own."
            )
        items[item.id] = item
    if len(items) < MIN_ITEMS:
        raise DataFormatError(
            f"{path}: {len(items)} items, and an interval needs at least {MIN_ITEMS}. {REMEDY}"
        )
    return ProbeItems(path, hashlib.sha256(content).hexdigest(), tuple(items.values()))
