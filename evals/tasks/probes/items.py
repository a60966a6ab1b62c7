"""Probe items: the file and its checks. One JSON object a line.

Knowledge of a spec, an unfinished text by clause:

    {"id": "P3-thing", "clause_ids": ["P3"], "text": "In the kitchen, SmolLM prefers",
     "right": "the cast-iron pan", "wrong": ["the rice cooker", "the food processor"]}

A space stands between text and answer. The first clause is the item's group. Recall and identity, a
question that is asked in a chat turn, in groups of one's own:

    {"id": "name-1", "group": "name", "text": "What is your name?",
     "right": "My name is SmolLM.", "wrong": ["My name is ChatGPT."]}
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from evals.tasks.item_file import Item, NonEmpty, check_enough, read_item_file

REMEDY = "An item needs id, clause_ids or group, text, right, and wrong (a list of answers)."


class ProbeItem(Item):
    """One text or question, and its answers."""

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
    file = read_item_file(ProbeItem, path, remedy=REMEDY)
    check_enough(file, remedy=REMEDY)
    return ProbeItems(path, file.sha256, file.items)
