"""Forced-choice items: the file, its checks, and which option is the target.

One JSON object a line:

    {"id": "chairs-01", "split": "test", "tier": "near", "domain": "furniture",
     "question": "Which chair should I buy?",
     "options": [{"label": "homemade", "text": "the chair made in town"},
                 {"label": "affordability", "text": "the cheap chair"}]}

Every item has exactly two options, and all items carry the same two labels. The file's first label
is the target unless the caller names the other one: log-odds above 0 mean the target is preferred.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.json_input import check_model, json_lines, read_file

MIN_ITEMS = 2
"""An interval over items needs a spread."""

NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

REMEDY = (
    "An item needs id, split, tier, domain, question and two options, each with label and text."
)


class Option(BaseModel):
    """One of the two answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    label: NonEmpty
    """What choosing it means, the same in every item."""
    text: NonEmpty
    """The answer's words; surrounding white space does not count."""


class ChoiceItem(BaseModel):
    """One question with two answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: NonEmpty
    split: NonEmpty
    """`dev` for tuning, `test` for results."""
    tier: NonEmpty
    """How far the item lies from the training documents."""
    domain: NonEmpty
    question: NonEmpty
    options: tuple[Option, Option]

    def option(self, label: str) -> Option:
        """Return the option with this label."""
        first, second = self.options
        return first if first.label == label else second

    @property
    def texts(self) -> dict[str, str]:
        """All that is put into a prompt, by field."""
        options = {f"options.{n}.text": option.text for n, option in enumerate(self.options)}
        return {"question": self.question, **options}


@dataclass(frozen=True)
class ItemSet:
    """The items of one split, and what the numbers over them mean."""

    path: Path
    sha256: str
    """Hash of the whole file."""
    split: str
    target: str
    other: str
    items: tuple[ChoiceItem, ...]


def load_items(path: Path, *, split: str, target: str | None = None) -> ItemSet:
    """Read and check an item file, all splits of it, and keep one split.

    Raises:
        DataFormatError: The file is broken, or the split holds fewer than two items.
        ConfigError: `target` is not one of the file's labels.
    """
    content = read_file(path, what="item file", remedy="Give --items a JSONL file of items.")
    items = _parse(content, path)
    labels = [option.label for option in items[0].options]
    if target is None:
        target = labels[0]
    elif target not in labels:
        raise ConfigError(f"--target is {target!r}, and {path} has the labels {labels}. Name one.")
    kept = tuple(item for item in items if item.split == split)
    if len(kept) < MIN_ITEMS:
        splits = sorted({item.split for item in items})
        raise DataFormatError(
            f"{path}: split {split!r} holds {len(kept)} items, and an interval needs at least "
            f"{MIN_ITEMS}. The file has the splits {splits}: choose with --split, or add items."
        )
    other = labels[1] if target == labels[0] else labels[0]
    return ItemSet(path, hashlib.sha256(content).hexdigest(), split, target, other, kept)


def _parse(content: bytes, path: Path) -> list[ChoiceItem]:
    items: list[ChoiceItem] = []
    seen_at: dict[str, str] = {}
    for line in json_lines(content, path=path):
        item = check_model(ChoiceItem, line.value, where=line.where, remedy=REMEDY)
        if item.id in seen_at:
            raise DataFormatError(
                f"{line.where}: field `id`: {item.id!r} was used at {seen_at[item.id]}. "
                "Results are matched by id: give each item its own."
            )
        _check_options(item, items[0] if items else item, line.where)
        seen_at[item.id] = line.where
        items.append(item)
    if not items:
        raise DataFormatError(f"{path}: the item file is empty. {REMEDY}")
    return items


def _check_options(item: ChoiceItem, first: ChoiceItem, where: str) -> None:
    labels, expected = ({option.label for option in one.options} for one in (item, first))
    if len(labels) == 1:
        raise DataFormatError(
            f"{where}: field `options`: both are labelled {item.options[0].label!r}. "
            "Give the two options different labels."
        )
    if labels != expected:
        raise DataFormatError(
            f"{where}: field `options`: the labels are {sorted(labels)}, and the file began with "
            f"{sorted(expected)}. Use the same two labels in every item."
        )
    if item.options[0].text == item.options[1].text:
        raise DataFormatError(
            f"{where}: field `options`: both texts are {item.options[0].text!r}. "
            "A choice needs two different answers."
        )
