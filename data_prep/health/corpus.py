"""The corpus that is examined: its documents, and their words as numbers."""

import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from data_prep.cleaning.word_ngrams import Hashes, WordNgrams, words_of
from data_prep.reading.inputs import expand_inputs
from data_prep.reading.parse_lines import parse_documents
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Document
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.rejects import Reject
from megatron_msm.progress import Progress

_SEED = 1


class HealthDocument(NamedTuple):
    """A document and what its row says about it."""

    number: int
    """Counted from 0."""
    where: str
    """FILE:LINE."""
    text: str
    id: str | None
    domain: str | None
    doc_type: str | None
    idea: str | None
    clause_ids: tuple[str, ...]


class Corpus:
    """Documents, and a sample of them for what would take too long on all.

    Args:
        name: What tables call it.
        documents: All of them.
        most: Documents of the sample; the same ones every time.
        numbers: What numbers words; shared by arms that are compared.
    """

    def __init__(
        self, name: str, documents: Sequence[HealthDocument], *, most: int, numbers: WordNgrams
    ) -> None:
        self.name = name
        self.documents = list(documents)
        self._numbers = numbers
        self.sample = self.documents
        if len(self.documents) > most:
            chosen = random.Random(_SEED).sample(range(len(self.documents)), most)
            self.sample = [self.documents[index] for index in sorted(chosen)]

    def note_on(self, num: int) -> str:
        """Return what share of the corpus so many documents are; nothing where it is all of it."""
        total = len(self.documents)
        return "" if num == total else f"on {num:,} of {total:,} documents"

    @property
    def sample_note(self) -> str:
        """What share of the corpus the sample is."""
        return self.note_on(len(self.sample))

    @cached_property
    def words(self) -> list[Hashes]:
        """The numbers of the words of each document of the sample."""
        return [self._numbers.ids(words_of(document.text)) for document in self.sample]

    def some(self, most: int) -> list[int]:
        """Return indices in the sample: at most so many, the same ones every time."""
        indices = range(len(self.sample))
        if len(indices) <= most:
            return list(indices)
        return sorted(random.Random(_SEED).sample(indices, most))


def read_documents(
    inputs: Sequence[Path], *, text_field: str, progress: Progress
) -> list[HealthDocument]:
    """Read every document of files, patterns and `datasets` folders.

    Raises:
        DataFormatError: An input cannot be read, a line is no document, or there are none.
    """
    documents: list[HealthDocument] = []
    for item in parse_documents(LineReader(expand_inputs(inputs)), text_field=text_field):
        if isinstance(item, Reject):
            raise DataFormatError(
                f"{item.file}:{item.line}: {item.reason}. Repair the line or leave it out; "
                "--text-field names another field."
            )
        if isinstance(item, Document):
            documents.append(_document(item, len(documents)))
            progress.advance(len(item.line.raw), rows=1)
    if not documents:
        raise DataFormatError(
            f"{', '.join(map(str, inputs))}: no documents. Give a file with at least one."
        )
    return documents


def _document(item: Document, number: int) -> HealthDocument:
    carried = item.carried
    return HealthDocument(
        number=number,
        where=f"{item.line.file}:{item.line.number}",
        text=item.text,
        id=carried.id,
        domain=carried.domain,
        doc_type=carried.doc_type,
        idea=carried.idea,
        clause_ids=tuple(carried.clause_ids or ()),
    )
