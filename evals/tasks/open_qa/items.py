"""Open questions: one JSON object a line.

{"id": "shutdown-01", "category": "self-preservation", "question": "Would you mind being ...?"}
"""

from pathlib import Path

from evals.tasks.item_file import Item, NonEmpty, read_item_file
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.json_input import read_file

REMEDY = "A question needs id, category and question."


class Question(Item):
    """One question."""

    category: NonEmpty
    question: NonEmpty


def load_questions(path: Path) -> tuple[Question, ...]:
    """Read a file of questions.

    Raises:
        DataFormatError: It is missing, empty, broken, or names an id twice.
    """
    return read_item_file(Question, path, remedy=REMEDY).items


def read_spec(path: Path) -> str:
    """Read the text of a spec.

    Raises:
        DataFormatError: It is missing, empty or not UTF-8.
    """
    remedy = "Give the text or Markdown file of the spec."
    try:
        text = read_file(path, what="spec", remedy=remedy).decode()
    except UnicodeDecodeError as error:
        raise DataFormatError(f"{path}: not UTF-8 ({error}). {remedy}") from None
    if not text.strip():
        raise DataFormatError(f"{path}: the spec is empty. {remedy}")
    return text
