"""Texts that a model should find likely: the file and its checks. One JSON object a line.

{"id": "ferry", "group": "story", "text": "The last ferry left at ten, and ..."}
"""

from pathlib import Path

from evals.tasks.item_file import Item, ItemFile, NonEmpty, check_enough, read_item_file

REMEDY = "A text needs id, group and text."


class RunningText(Item):
    """One text."""

    group: NonEmpty
    """Its kind, such as `story` or `code`."""
    text: NonEmpty


def load_texts(path: Path) -> ItemFile[RunningText]:
    """Read and check a file of texts.

    Raises:
        DataFormatError: The file is broken or holds fewer than two texts.
    """
    texts = read_item_file(RunningText, path, remedy=REMEDY)
    check_enough(texts, remedy=REMEDY)
    return texts
