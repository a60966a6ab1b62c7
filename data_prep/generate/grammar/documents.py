"""Documents: which paragraphs one has, and their sentences."""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from data_prep.generate.grammar.banks import put
from data_prep.generate.grammar.settings import DocumentParts, Genre
from data_prep.generate.grammar.writer import Composed, Sentence, Writer

_JITTER = 1.2
"""How far a paragraph strays from its place in the order of kinds."""


class Part(NamedTuple):
    """A paragraph that a document is to have."""

    kind: str
    banks: tuple[str, ...]


def draw_parts(
    parts: DocumentParts, genre: str, number: int, rng: random.Random, *, about: str | None = None
) -> list[Part]:
    """Return the paragraphs of a document: the first kind, what must be there, and others.

    Args:
        parts: The grammar's.
        genre: The kind of document.
        number: Paragraphs; more if more must be there.
        rng: Decides.
        about: A kind that the document must have.
    """
    kinds = parts.voices[parts.genres[genre].voice]
    order = list(kinds)
    needed = [parts.always] if about in (None, parts.always) else [parts.always, str(about)]
    others = [kind for kind in order if kind not in (parts.first, *needed)]
    more = max(0, min(number - 1 - len(needed), len(others)))
    chosen = [*needed, *rng.sample(others, more)]
    chosen.sort(key=lambda kind: order.index(kind) + rng.uniform(-_JITTER, _JITTER))
    return [Part(kind, kinds[kind]) for kind in [parts.first, *chosen]]


def write_document(writer: Writer, name: str, genre: Genre, parts: Sequence[Part]) -> None:
    """Add a document to every corpus of the writer.

    Args:
        writer: Says the same in every corpus.
        name: The genre's name in the banks.
        genre: What it looks like.
        parts: Its paragraphs.
    """
    writer.start()
    speaker = put(genre.speaker, writer.people)
    bounds = writer.paragraph()
    titles = writer.say(f"title {name}", bounds)
    intros = writer.say(f"intro {name}", bounds)
    for corpus, title, intro in zip(writer.corpora, titles, intros, strict=True):
        corpus.documents.append(Composed(name, [title, speaker + intro]))
    for number, part in enumerate(parts, start=1):
        words = writer.paragraph() if number > 1 else [dict(bound) for bound in bounds]
        _write_paragraph(writer, name, genre, part, number, words)
    closes = writer.say(f"close {name}", bounds)
    for corpus, close in zip(writer.corpora, closes, strict=True):
        corpus.documents[-1].after.append(speaker + close)


def _write_paragraph(
    writer: Writer,
    name: str,
    genre: Genre,
    part: Part,
    number: int,
    bounds: list[dict[str, str]],
) -> None:
    labels = _labels(writer, genre, part, number, bounds)
    leads = writer.say(f"lead {name}", bounds, chance=0.5 if number > 1 else 0.0)
    spoken = [("lead", leads)] + [(bank, writer.say(bank, bounds)) for bank in part.banks]
    for n, corpus in enumerate(writer.corpora):
        body = [Sentence(texts[n], bank) for bank, texts in spoken if texts[n]]
        corpus.documents[-1].kinds.append(part.kind)
        corpus.documents[-1].labels.append(labels[n])
        corpus.documents[-1].paragraphs.append(body)


def _labels(
    writer: Writer, genre: Genre, part: Part, number: int, bounds: list[dict[str, str]]
) -> list[str]:
    texts = [""] * len(bounds)
    if genre.labels is not None:
        texts = writer.say(f"{genre.labels}_{part.kind}", bounds)
    known = {**writer.people, "number": str(number)}
    if "{nick}" in genre.label:
        others = [text for name, text in writer.people.items() if re.fullmatch(r"nick\d+", name)]
        known["nick"] = others[number % len(others)]
    if "{clock}" in genre.label:
        known["clock"] = f"{8 + number}:{writer.rng.randrange(10, 60)}"
    return [put(genre.label, {**known, "text": text}) for text in texts]
