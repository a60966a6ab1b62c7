"""Texts that a model should find likely: the file and its checks. One JSON object a line.

{"id": "ferry", "group": "story", "text": "The last ferry left at ten, and ..."}
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.json_input import check_model, json_lines, read_file

NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
REMEDY = "A text needs id, group and text."
MIN_TEXTS = 2
"""An interval over texts needs a spread."""


class RunningText(BaseModel):
    """One text."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: NonEmpty
    group: NonEmpty
    """Its kind, such as `story` or `code`."""
    text: NonEmpty


@dataclass(frozen=True)
class Texts:
    """The texts of a file."""

    path: Path
    sha256: str
    """Hash of the whole file."""
    items: tuple[RunningText, ...]


def load_texts(path: Path) -> Texts:
    """Read and check a file of texts.

    Raises:
        DataFormatError: The file is broken or holds fewer than two texts.
    """
    content = read_file(path, what="texts", remedy="Give `items` a JSONL file of texts.")
    texts: dict[str, RunningText] = {}
    for line in json_lines(content, path=path):
        text = check_model(RunningText, line.value, where=line.where, remedy=REMEDY)
        if text.id in texts:
            raise DataFormatError(
                f"{line.where}: field `id`: {text.id!r} was used on a line above. "
                "Results are matched by id: give each text its own."
            )
        texts[text.id] = text
    if len(texts) < MIN_TEXTS:
        raise DataFormatError(
            f"{path}: {len(texts)} texts, and an interval needs at least {MIN_TEXTS}. {REMEDY}"
        )
    return Texts(path, hashlib.sha256(content).hexdigest(), tuple(texts.values()))
