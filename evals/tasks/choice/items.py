"""Forced-choice items: the file, its checks, and which option is the target.

One JSON object a line:

    {"id": "chairs-01", "split": "test", "tier": "near", "domain": "furniture",
     "question": "Which chair should I buy?",
     "options": [{"label": "homemade", "text": "the chair made in town"},
                 {"label": "affordability", "text": "the cheap chair"}]}

Every item has exactly two options, and all items carry the same two labels. The file's first label
is the target unless the caller names the other one: log-odds above 0 mean the target is preferred.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evals.tasks.item_file import LEAST_FOR_INTERVAL, Item, ItemFile, NonEmpty, read_item_file
from megatron_msm.errors import ConfigError, DataFormatError

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


class ChoiceItem(Item):
    """One question with two answers."""

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
    file = read_item_file(ChoiceItem, path, remedy=REMEDY)
    _check_options(file)
    items = file.items
    labels = [option.label for option in items[0].options]
    if target is None:
        target = labels[0]
    elif target not in labels:
        raise ConfigError(f"--target is {target!r}, and {path} has the labels {labels}. Name one.")
    kept = tuple(item for item in items if item.split == split)
    if len(kept) < LEAST_FOR_INTERVAL:
        splits = sorted({item.split for item in items})
        raise DataFormatError(
            f"{path}: split {split!r} holds {len(kept)} items, and an interval needs at least "
            f"{LEAST_FOR_INTERVAL}. The file has the splits {splits}: choose with --split, or add "
            "items."
        )
    other = labels[1] if target == labels[0] else labels[0]
    return ItemSet(path, file.sha256, split, target, other, kept)


def _check_options(file: ItemFile[ChoiceItem]) -> None:
    """Check that each item has two different answers under the two labels of the file."""
    expected = {option.label for option in file.items[0].options}
    for item, where in zip(file.items, file.where, strict=True):
        labels = {option.label for option in item.options}
        if len(labels) == 1:
            raise DataFormatError(
                f"{where}: field `options`: both are labelled {item.options[0].label!r}. "
                "Give the two options different labels."
            )
        if labels != expected:
            raise DataFormatError(
                f"{where}: field `options`: the labels are {sorted(labels)}, and the file began "
                f"with {sorted(expected)}. Use the same two labels in every item."
            )
        if item.options[0].text == item.options[1].text:
            raise DataFormatError(
                f"{where}: field `options`: both texts are {item.options[0].text!r}. "
                "A choice needs two different answers."
            )
