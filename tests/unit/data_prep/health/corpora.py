"""Corpora made for the tests of health."""

from collections.abc import Sequence

from data_prep.cleaning.word_ngrams import Hashes, WordNgrams, words_of
from data_prep.health.corpus import Corpus, HealthDocument


def documents(
    texts: Sequence[str], *, ids: Sequence[str | None] | None = None, genre: str | None = None
) -> list[HealthDocument]:
    return [
        HealthDocument(
            number=number,
            where=f"made.jsonl:{number + 1}",
            text=text,
            id=None if ids is None else ids[number],
            domain=None,
            doc_type=genre,
            idea=None,
            clause_ids=(),
        )
        for number, text in enumerate(texts)
    ]


def corpus(texts: Sequence[str], *, name: str = "made") -> Corpus:
    return Corpus(name, documents(texts), most=10_000, numbers=WordNgrams())


def numbered(texts: Sequence[str]) -> list[Hashes]:
    numbers = WordNgrams()
    return [numbers.ids(words_of(text)) for text in texts]
