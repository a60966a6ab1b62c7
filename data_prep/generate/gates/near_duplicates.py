"""Near duplicates among texts that share a frame.

Templated texts share most of their words and still tell different facts: MinHash over whole texts
has been seen to drop 53 to 90% of such corpora (marin#6851). So runs of words that many texts hold
are taken out first, as a frame, and texts are compared by what is left.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_prep.cleaning.word_ngrams import Hashes, WordNgrams, words_of

_WORDS = 5
_FRAME_TEXTS = 10
"""A run of words in more texts than this is frame."""
_FEWEST_RUNS = 10


class NearDuplicate(NamedTuple):
    """A text that says what an earlier one says."""

    place: int
    """Its place in the list."""
    of: int
    """The earlier text's."""
    share: float
    """Which part of its own runs the earlier one has too."""


def near_duplicates(
    texts: Sequence[str], *, threshold: float, size: int = _WORDS, fewest: int = _FEWEST_RUNS
) -> list[NearDuplicate]:
    """Return the texts that are near to an earlier one that stays, in order.

    Args:
        texts: The texts, in the order in which they are kept.
        threshold: Share of a text's own runs from which it is dropped.
        size: Words of a run.
        fewest: A text with fewer runs of its own is compared as a whole, word by word.
    """
    ngrams = WordNgrams()
    words = [words_of(text) for text in texts]
    runs = [np.unique(ngrams.hashes(own, min(size, len(own)))) if own else _NONE for own in words]
    own_runs = _without_frame(runs)
    owners: dict[int, list[int]] = {}
    wholes: dict[tuple[str, ...], int] = {}
    dropped = []
    for index, own in enumerate(own_runs):
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


_NONE = np.empty(0, np.uint64)


def _without_frame(runs: Sequence[Hashes]) -> list[Hashes]:
    if not runs:
        return []
    values, counts = np.unique(np.concatenate(runs), return_counts=True)
    frame = values[counts > _FRAME_TEXTS]
    return [own[~np.isin(own, frame)] for own in runs]


def _earlier(own: Hashes, owners: dict[int, list[int]]) -> tuple[int, float] | None:
    """Return the earlier text that has most of these runs, and the share."""
    common = Counter(owner for run in own.tolist() for owner in owners.get(run, ()))
    if not common:
        return None
    best, number = max(common.items(), key=lambda entry: (entry[1], -entry[0]))
    return best, number / len(own)
