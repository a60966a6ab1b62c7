"""Near duplicates that keep distinct facts: what differs once the shared frame is taken out.

Word overlap alone calls two rows of one template duplicates whatever they say: it has been seen to
remove 53 to 90% of templated synthetic sources. Here a row repeats an earlier one when it is near
to it by words *and* by its facts. Facts are runs of five words, less those that the four words
before give away:

- Four words that stand in three places or more, and half of the time or more go on with the same
  word, are frame. The word that follows is no fact, even if it is another one: then it is an edit
  in a copy, and neither are the runs that begin in it.
- Where they go on in many ways, the word that follows fills a slot, and is a fact.
- Four words that stand in one or two places are text of the row's own, and so is what follows.

A row without any facts is compared by all its runs.
"""

from collections.abc import Sequence

import numpy as np

from data_prep.cleaning.dedup import KeptRows, jaccard_of
from data_prep.cleaning.word_ngrams import Hashes, hashes_of_runs
from data_prep.health.corpus import Corpus
from data_prep.health.figures import Figure, Section, Table
from megatron_msm.errors import MissingExtraError

_SIZE = 5
_LEAST_OF_FRAME = 3
"""Places in which the words of a frame stand."""
_FORESEEN = 0.5
"""Share of these places that go on with the same word."""
_THRESHOLD = 0.7
"""The default of `msm prep dedup`."""
_SHOWN = 10


def runs_of(words: Hashes) -> Hashes:
    """Return the different runs of a text, sorted; a short text is one run."""
    return np.unique(hashes_of_runs(words, min(_SIZE, len(words)))) if len(words) else words


class Facts:
    """What documents say beyond what they share."""

    def __init__(self, documents: Sequence[Hashes]) -> None:
        # So that the first words, too, have four before them: 0 is no word's number.
        documents = [np.concatenate([np.zeros(_SIZE - 1, np.uint64), words]) for words in documents]
        self._documents = documents
        none = np.empty(0, np.uint64)
        runs = np.concatenate([none, *(hashes_of_runs(words, _SIZE) for words in documents)])
        before = np.concatenate([none, *(_before(words) for words in documents)])
        self._runs, first, times = np.unique(runs, return_index=True, return_counts=True)
        order = np.argsort(before[first], kind="stable")
        self._contexts, begins = np.unique(before[first][order], return_index=True)
        if len(begins):
            self._places = np.add.reduceat(times[order], begins)
            self._most = np.maximum.reduceat(times[order], begins)
        self._times = times

    def of(self, place: int) -> Hashes:
        """Return the facts of a document, sorted; its runs where it has none."""
        words = self._documents[place]
        runs = hashes_of_runs(words, _SIZE)
        if not len(runs):
            return runs
        context = np.searchsorted(self._contexts, _before(words))
        places, most = self._places[context], self._most[context]
        is_frame = (places >= _LEAST_OF_FRAME) & (most >= _FORESEEN * places)
        is_edit = is_frame & (self._times[np.searchsorted(self._runs, runs)] < most)
        after_edit = np.convolve(is_edit, np.ones(_SIZE))[: len(runs)] > 0
        own = places < _LEAST_OF_FRAME
        found = np.unique(runs[~is_frame & ~(own & after_edit)])
        return found if len(found) else np.unique(runs)


def _before(words: Hashes) -> Hashes:
    """Return for each run the number of its words but the last."""
    return hashes_of_runs(words, _SIZE - 1)[:-1]


def repeated_rows(documents: Sequence[Hashes]) -> tuple[list[int], list[int]]:
    """Return which rows repeat an earlier one: by words alone, and with their facts.

    Raises:
        MissingExtraError: The package `rensa` is not installed.
    """
    feature = "near duplicates in `msm prep health`"
    by_words = KeptRows(_THRESHOLD, feature=feature)
    with_facts = KeptRows(_THRESHOLD, feature=feature)
    facts = Facts(documents)
    near: list[int] = []
    repeated: list[int] = []
    for place, words in enumerate(documents):
        runs = runs_of(words)
        if not len(runs):
            continue
        if by_words.nearest_or_add(place, "", runs) is not None:
            near.append(place)

        def is_near(other: int, runs: Hashes = runs) -> bool:
            return jaccard_of(runs, runs_of(documents[other])) >= _THRESHOLD

        if not with_facts.add_if_no_match(place, "", facts.of(place), is_match=is_near):
            repeated.append(place)
    return near, repeated


def measure_near_duplicates(corpus: Corpus) -> Section:
    """Measure a corpus; without `rensa` nothing is measured, and the figures say so."""
    titles = {
        "near_by_words": "documents near an earlier one by words alone",
        "near_duplicates": "documents that repeat an earlier one, facts and all",
    }
    try:
        near, repeated = repeated_rows(corpus.words)
    except MissingExtraError:
        note = "needs pip install 'megatron-msm[dedup]'"
        none = [Figure(name, title, None, "share", note) for name, title in titles.items()]
        return Section("Near duplicates", none)
    total = len(corpus.sample)
    figures = [
        Figure(name, titles[name], len(found) / total, "share", corpus.sample_note)
        for name, found in (("near_by_words", near), ("near_duplicates", repeated))
    ]
    rows = [(corpus.sample[place].where, corpus.sample[place].id or "") for place in repeated]
    title = f"Documents that repeat an earlier one: {min(_SHOWN, len(rows))} of {len(rows):,}"
    table = Table("repeats", title, ("row", "id"), rows[:_SHOWN])
    return Section("Near duplicates", figures, [table] if rows else [])
