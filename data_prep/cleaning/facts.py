"""What a text says beyond the frame that it shares with others.

Word overlap alone calls two texts of one template duplicates whatever they say: it has been seen to
remove 53 to 90% of templated synthetic sources (marin#6851). So texts are also compared by their
facts: runs of five words, less those that the four words before give away.

- Four words that occur three times or more, and half of the time or more go on with the same word,
  are frame. The word that follows is no fact, even if it is another one: then it is an edit in a
  copy, and neither are the runs that begin in it.
- Where they go on in many ways, the word that follows fills a slot, and is a fact.
- Four words that occur once or twice are text of the row's own, and so is what follows.

A text without any facts is compared by all its runs.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_prep.cleaning.word_ngrams import Hashes, hashes_of_runs

Mask = npt.NDArray[np.bool_]
SIZE = 5
"""Words of a run."""
_LEAST_OF_FRAME = 3
"""Occurrences of the words of a frame."""
_FORESEEN = 0.5
"""Share of these occurrences that go on with the same word."""


def runs_of(words: Hashes, size: int = SIZE) -> Hashes:
    """Return the different runs of a text, sorted; a short text is one run."""
    return np.unique(hashes_of_runs(words, min(size, len(words)))) if len(words) else words


def facts_of(documents: Sequence[Hashes], size: int = SIZE) -> list[Hashes]:
    """Return what each document says beyond what they share, sorted; where nothing, its runs.

    Args:
        documents: The numbered words of each.
        size: Words of a run.
    """
    # So that the first words, too, have some before them: 0 is no word's number.
    begin = np.zeros(size - 1, np.uint64)
    padded = [np.concatenate([begin, words]) for words in documents]
    each = [hashes_of_runs(words, size) for words in padded]
    before = [hashes_of_runs(words, size - 1)[:-1] for words in padded]
    if not any(map(len, each)):
        return each
    _, first, run, times = np.unique(
        np.concatenate(each), return_index=True, return_inverse=True, return_counts=True
    )
    _, context = np.unique(np.concatenate(before)[first], return_inverse=True)
    occurrences = np.bincount(context, weights=times)[context][run]
    most = np.zeros(len(times), np.int64)
    np.maximum.at(most, context, times)
    most = most[context][run]
    is_frame = (occurrences >= _LEAST_OF_FRAME) & (most >= _FORESEEN * occurrences)
    is_edit = is_frame & (times[run] < most)
    is_own = occurrences < _LEAST_OF_FRAME
    ends = np.cumsum([len(runs) for runs in each])[:-1]
    parts = (np.split(mask, ends) for mask in (is_frame, is_edit, is_own))
    return [_facts(runs, *masks, size=size) for runs, *masks in zip(each, *parts, strict=True)]


def _facts(runs: Hashes, is_frame: Mask, is_edit: Mask, is_own: Mask, *, size: int) -> Hashes:
    if not len(runs):
        return runs
    after_edit = np.convolve(is_edit, np.ones(size))[: len(runs)] > 0
    found = np.unique(runs[~is_frame & ~(is_own & after_edit)])
    return found if len(found) else np.unique(runs)
