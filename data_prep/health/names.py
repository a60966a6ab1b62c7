"""Names in too many documents: generators like a few invented ones, and use them everywhere.

A name is a capitalised word, or several in a row, that does not begin a sentence, and whose words
are rarely written small in the same corpus.
"""

import re
from collections import Counter
from collections.abc import Iterable

from data_prep.health.composition import count_table
from data_prep.health.corpus import Corpus
from data_prep.health.density import sentences_of
from data_prep.health.figures import Figure, Section
from data_prep.health.values import HealthValues, spaced

_APOSTROPHES = "'\u2019"
_OPENS = frozenset(':"(\u201c\u2018')
_WORD = re.compile(f'[^\\W_]+(?:[-{_APOSTROPHES}][^\\W_]+)*|[:"(\u201c\u2018]')
_MOST_SMALL = 0.25
"""A word of a name may be written small in this share of the documents that hold it."""
_CONTRACTION = re.compile(f"^I[{_APOSTROPHES}].*|[{_APOSTROPHES}]s$")


def names_of(texts: Iterable[str]) -> Counter[str]:
    """Return how many texts hold each name."""
    found: Counter[str] = Counter()
    small: Counter[str] = Counter()
    large: Counter[str] = Counter()
    for text in texts:
        names, words = _read(text)
        found.update(names)
        small.update({word for word in words if word[0].islower()})
        large.update({word.casefold() for word in words if word[0].isupper()})

    def is_name(name: str) -> bool:
        return all(
            small[word.casefold()] <= _MOST_SMALL * large[word.casefold()] for word in name.split()
        )

    return Counter({name: count for name, count in found.items() if is_name(name)})


def capitalised(text: str) -> set[str]:
    """Return the capitalised words, and rows of them, that do not begin a sentence."""
    return _read(text)[0]


def _read(text: str) -> tuple[set[str], set[str]]:
    """Return the names of a text, and the words that do not begin a sentence."""
    names: set[str] = set()
    inside: set[str] = set()
    for sentence in sentences_of(text):
        begins, current = True, []
        for token in _WORD.findall(sentence):
            if token in _OPENS:
                begins = True
            elif begins:
                # A name that begins a sentence is left out whole: "Hugging Face" is no "Face".
                begins = token[0].isupper()
                continue
            else:
                word = _CONTRACTION.sub("", token)
                inside.add(word or "I")
                if len(word) > 1 and word[0].isupper():
                    current.append(word)
                    continue
            if current:
                names.add(" ".join(current))
                current = []
        if current:
            names.add(" ".join(current))
    return names, inside


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
    names = unexpected(names_of(document.text for document in corpus.sample), values)
    total = len(corpus.sample)
    top = names.most_common(1)
    note = f"{top[0][0]}" if top else ""
    figure = Figure(
        "top_name",
        "documents that hold the commonest name not expected",
        top[0][1] / total if top else 0.0,
        "share",
        "; ".join(filter(None, (note, corpus.sample_note))),
    )
    table = count_table("names", "Names not expected", Counter(dict(names.most_common(15))), total)
    return Section("Names", [figure], [table] if names else [])
