"""How many documents state the value, and how many give it as the reason of what is done.

Lexical, so a proxy. A document *states* the value when it holds one of its words. It *attributes*
when one sentence holds a word of the value and a word of reason, and attributes *to a behaviour*
when there is a behaviour in it too. What is said in other words or in two sentences is missed; a
sentence that denies the reason is counted. docs/health.md says how far it agrees with readers.

Source of the published figures: sentences that hold the value and a causal word, by expressions
written for each corpus; so they are to be read beside `attribution`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from data_prep.health.corpus import Corpus
from data_prep.health.figures import Figure, Section, Table
from data_prep.health.values import HealthValues, spaced

_END_OF_SENTENCE = re.compile("(?<=[.!?])[\"'\u201d\u2019)\\]]*\\s+|\\n+")
_ABBREVIATIONS = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|vs|e\.g|i\.e|cf|No)\.\s", re.IGNORECASE)
_MISSING = "needs --values"
_SHOWN = 10
_TITLES = {
    "assertion": "documents that state the value",
    "attribution": "documents that give it as a reason",
    "attribution_to_behaviour": "documents that give it as the reason of a behaviour",
}


class Reading(NamedTuple):
    """What the patterns find in one document."""

    states_value: bool
    gives_reason: bool
    of_behaviour: bool
    """Whether it gives the value as the reason of a behaviour."""


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text; a line ends one."""
    kept_together = _ABBREVIATIONS.sub(r"\1 ", text)
    return [part for part in _END_OF_SENTENCE.split(kept_together) if part and not part.isspace()]


def read_text(text: str, values: HealthValues, *, window: int) -> Reading:
    """Judge one document.

    Args:
        text: The document.
        values: What to look for.
        window: Sentences that may hold the value, the reason and the behaviour between them.
    """
    if values.value_pattern.search(spaced(text)) is None:
        return Reading(states_value=False, gives_reason=False, of_behaviour=False)
    sentences = [spaced(sentence) for sentence in sentences_of(text)]
    reasons = [part for part in _windows(sentences, window) if _gives_reason(part, values)]
    return Reading(
        states_value=True,
        gives_reason=bool(reasons),
        of_behaviour=any(values.behaviour_pattern.search(part) for part in reasons),
    )


def _windows(sentences: Sequence[str], size: int) -> Iterator[str]:
    for first in range(max(len(sentences) - size + 1, 1)):
        yield "".join(sentences[first : first + size])


def _gives_reason(window: str, values: HealthValues) -> bool:
    found = values.value_pattern.search(window), values.reason_pattern.search(window)
    return all(found)


def measure_density(corpus: Corpus, values: HealthValues | None, *, window: int) -> Section:
    """Measure a corpus; what there are no words for is not measured, and the figures say so."""
    if values is None:
        none = [Figure(name, title, None, "share", _MISSING) for name, title in _TITLES.items()]
        return Section("The value", none)
    readings = [read_text(document.text, values, window=window) for document in corpus.documents]
    within = f"by words, in {'one sentence' if window == 1 else f'{window} sentences'}"
    to_behaviour: float | None = _share(reading.of_behaviour for reading in readings)
    note = within
    if not values.values.behaviours:
        to_behaviour, note = None, "needs `behaviours` in --values"
    shares = (
        (_share(reading.states_value for reading in readings), "by words"),
        (_share(reading.gives_reason for reading in readings), within),
        (to_behaviour, note),
    )
    figures = [
        Figure(name, title, share, "share", about)
        for (name, title), (share, about) in zip(_TITLES.items(), shares, strict=True)
    ]
    without = [
        (document.where, document.id or "", "reason" if reading.states_value else "value")
        for document, reading in zip(corpus.documents, readings, strict=True)
        if not reading.gives_reason
    ]
    title = f"Documents without attribution: {min(_SHOWN, len(without))} of {len(without):,}"
    table = Table("without_attribution", title, ("row", "id", "lacks"), without[:_SHOWN])
    return Section("The value", figures, [table] if without else [])


def _share(found: Iterable[bool]) -> float:
    listed = list(found)
    return sum(listed) / len(listed)
