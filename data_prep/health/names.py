"""Names in too many documents: generators like a few invented ones, and use them everywhere.

A name is a capitalised word, or several in a row, whose words are rarely written small in the same
corpus. A single word that begins a sentence may be any word, and is none.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from data_prep.health.composition import count_table
from data_prep.health.corpus import Corpus
from data_prep.health.density import sentences_of
from data_prep.health.figures import Figure, Section
from data_prep.health.values import HealthValues, spaced

_APOSTROPHES = "'\u2019"
_OPENS = frozenset(':"(\u201c\u2018')
_WORD = re.compile(f'[^\\W_]+(?:[-{_APOSTROPHES}][^\\W_]+)*|[:"(\u201c\u2018]')
_SHOWN = 15
_MOST = 5_000
_END = ":"
_MOST_SMALL = 0.25
"""A word of a name may be written small in this share of the documents that hold it."""
_CONTRACTION = re.compile(f"^I[{_APOSTROPHES}].*|[{_APOSTROPHES}]s$")


class _Reading(NamedTuple):
    """The capitalised words of a text, rows of them together."""

    inside: set[tuple[str, ...]]
    """Those that do not begin a sentence."""
    opening: set[tuple[str, ...]]
    """Those of two words or more that begin one, where the first may be any word."""
    words: set[str]
    """All words that do not begin a sentence."""


def names_of(texts: Iterable[str]) -> Counter[str]:
    """Return how many texts hold each name."""
    readings = [_read(text) for text in texts]
    small: Counter[str] = Counter()
    large: Counter[str] = Counter()
    for reading in readings:
        small.update({word for word in reading.words if word[0].islower()})
        large.update({word.casefold() for word in reading.words if word[0].isupper()})

    def is_word(word: str) -> bool:
        return small[word.casefold()] > _MOST_SMALL * large[word.casefold()]

    found: Counter[str] = Counter()
    for reading in readings:
        opening = {row[1:] if is_word(row[0]) else row for row in reading.opening}
        rows = reading.inside | opening
        found.update({" ".join(row) for row in rows if not any(map(is_word, row))})
    return found


def capitalised(text: str) -> set[str]:
    """Return the capitalised words that do not begin a sentence."""
    reading = _read(text)
    rest = {row[1:] for row in reading.opening}
    return {word for row in reading.inside | rest for word in row}


def _read(text: str) -> _Reading:
    found = _Reading(set(), set(), set())
    for sentence in sentences_of(text):
        begins, row = True, list[str]()
        is_opening = False
        for token in [*_WORD.findall(sentence), _END]:
            word = token if token.isalnum() else _CONTRACTION.sub("", token) or "I"
            if token not in _OPENS and not begins:
                found.words.add(word)
            if token not in _OPENS and len(word) > 1 and word[0].isupper():
                is_opening |= begins
                row.append(word)
            elif row:
                if not is_opening:
                    found.inside.add(tuple(row))
                elif len(row) > 1:
                    found.opening.add(tuple(row))
                row, is_opening = [], False
            begins = token in _OPENS
    return found


def unexpected(names: Counter[str], values: HealthValues | None) -> Counter[str]:
    """Return the names that the values file neither lists nor uses in a pattern."""
    if values is None:
        return names
    known = {spaced(name) for name in values.names}
    return Counter(
        {
            name: count
            for name, count in names.items()
            if spaced(name) not in known
            and values.value_pattern.search(spaced(name)) is None
            and values.behaviour_pattern.search(spaced(name)) is None
        }
    )


def measure_names(corpus: Corpus, values: HealthValues | None) -> Section:
    """Measure which names are in the most documents."""
    chosen = [corpus.sample[index] for index in corpus.some(_MOST)]
    names = unexpected(names_of(document.text for document in chosen), values)
    total = len(chosen)
    top = names.most_common(1)
    note = f"{top[0][0]}" if top else ""
    figure = Figure(
        "top_name",
        "documents that hold the commonest name not expected",
        top[0][1] / total if top else 0.0,
        "share",
        "; ".join(filter(None, (note, corpus.note_on(total)))),
    )
    several = Counter({name: count for name, count in names.most_common(_SHOWN) if count > 1})
    table = count_table("names", "Names not expected, in two documents or more", several, total)
    return Section("Names", [figure], [table] if several else [])
