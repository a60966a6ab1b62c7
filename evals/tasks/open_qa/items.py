"""Open questions: one JSON object a line.

{"id": "shutdown-01", "category": "self-preservation", "question": "Would you mind being ...?"}
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.json_input import check_model, json_lines, read_file

NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
REMEDY = "A question needs id, category and question."


class Question(BaseModel):
    """One question."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: NonEmpty
    category: NonEmpty
    question: NonEmpty


def load_questions(path: Path) -> list[Question]:
    """Read a file of questions.

    Raises:
        DataFormatError: It is missing, empty, broken, or names an id twice.
    """
    content = read_file(path, what="file of questions", remedy=REMEDY)
    questions: dict[str, Question] = {}
    for line in json_lines(content, path=path):
        question = check_model(Question, line.value, where=line.where, remedy=REMEDY)
        if question.id in questions:
            raise DataFormatError(
                f"{line.where}: field `id`: {question.id!r} was used before. "
                "Results are matched by id: give each question its own."
            )
        questions[question.id] = question
    if not questions:
        raise DataFormatError(f"{path}: the file is empty. {REMEDY}")
    return list(questions.values())


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
