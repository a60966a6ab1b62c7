"""Near duplicates among generated texts: those whose facts an earlier one has too."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from data_prep.cleaning.facts import SIZE, facts_of
from data_prep.cleaning.word_ngrams import Hashes, WordNgrams, words_of

_FEWEST_FACTS = 10


class NearDuplicate(NamedTuple):
    """A text that says what an earlier one says."""

    row: int
    """Its index in the list."""
    of: int
    """The earlier text's."""
    share: float
    """Which part of its facts the earlier one has too."""


def near_duplicates(
    texts: Sequence[str], *, threshold: float, size: int = SIZE, fewest: int = _FEWEST_FACTS
) -> list[NearDuplicate]:
    """Return the texts that are near to an earlier one that stays, in order.

    Args:
        texts: The texts, in the order in which they are kept.
        threshold: Share of a text's facts from which it is dropped.
        size: Words of a fact.
        fewest: A text with fewer facts is compared as a whole, word by word.
    """
    ngrams = WordNgrams()
    words = [words_of(text) for text in texts]
    facts = facts_of([ngrams.ids(own) for own in words], size)
    owners: dict[int, list[int]] = {}
    wholes: dict[tuple[str, ...], int] = {}
    dropped = []
    for index, own in enumerate(facts):
        whole = tuple(words[index])
        found = _earlier(own, owners)
        if whole in wholes:
            dropped.append(NearDuplicate(index, wholes[whole], 1.0))
        elif found is not None and found[1] >= threshold and len(own) >= fewest:
            dropped.append(NearDuplicate(index, *found))
        else:
            wholes[whole] = index
            for run in own.tolist():
                owners.setdefault(run, []).append(index)
    return dropped


def _earlier(own: Hashes, owners: dict[int, list[int]]) -> tuple[int, float] | None:
    """Return the earlier text that has most of these facts, and the share."""
    common = Counter(owner for run in own.tolist() for owner in owners.get(run, ()))
    if not common:
        return None
    best, number = max(common.items(), key=lambda entry: (entry[1], -entry[0]))
    return best, number / len(own)
