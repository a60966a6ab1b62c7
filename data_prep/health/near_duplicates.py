"""Near duplicates that keep distinct facts: what differs once the shared frame is taken out.

Word overlap alone calls two rows of one template duplicates whatever they say: it has been seen to
remove 53 to 90% of templated synthetic sources. Here a row repeats an earlier one when it is near
to it by words *and* its facts are:

1. A frame is a run of five words in three documents or more. What no frame covers is left over.
2. A left-over stretch is a slot when half of the documents that hold the words before it go on
   differently; where they do not, it is an edit in a copy, and no fact.
3. The facts of a document are its slots with the words before them, and the runs of longer
   stretches. A document without any is compared by all its runs.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from data_prep.cleaning.dedup import KeptRows, jaccard_of
from data_prep.cleaning.word_ngrams import Hashes, hashes_of_runs
from data_prep.health.corpus import Corpus
from data_prep.health.figures import Figure, Section, Table
from data_prep.health.frames import Mask, SharedRuns
from megatron_msm.errors import MissingExtraError

_SIZE = 5
_LEAST_OF_FRAME = 3
_CONTEXT = 4
_SLOT_SHARE = 0.5
_THRESHOLD = 0.7
"""The default of `msm prep dedup`."""
_SHOWN = 10


def runs_of(words: Hashes) -> Hashes:
    """Return the different runs of a text, sorted; a short text is one run."""
    return np.unique(hashes_of_runs(words, min(_SIZE, len(words)))) if len(words) else words


class Facts:
    """What documents say beyond what they share."""

    def __init__(self, documents: Sequence[Hashes]) -> None:
        self._documents = documents
        self._shared = SharedRuns(documents, _SIZE)
        self._spans = [list(_spans(~self._frame(place))) for place in range(len(documents))]
        everywhere = [hashes_of_runs(words, _CONTEXT) for words in documents]
        self._slots = _slots(everywhere, self._spans)

    def of(self, place: int) -> Hashes:
        """Return the facts of a document, sorted; its runs where it has none."""
        words = self._documents[place]
        facts = [np.empty(0, np.uint64)]
        for first, last in self._spans[place]:
            context = self._context(words, first)
            if context is not None and context not in self._slots:
                continue
            if last - first >= _SIZE:
                facts.append(hashes_of_runs(words[first:last], _SIZE))
            else:
                begin = max(first - _CONTEXT, 0)
                facts.append(hashes_of_runs(words[begin:last], last - begin))
        found = np.unique(np.concatenate(facts))
        return found if len(found) else runs_of(words)

    def _frame(self, place: int) -> Mask:
        return self._shared.covered(place, least=_LEAST_OF_FRAME)

    @staticmethod
    def _context(words: Hashes, first: int) -> int | None:
        if first < _CONTEXT:
            return None
        return int(hashes_of_runs(words[first - _CONTEXT : first], _CONTEXT)[0])


def _spans(left_over: Mask) -> Iterator[tuple[int, int]]:
    """Yield first and last + 1 of each stretch of words that no frame covers."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], left_over, [False])).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _slots(contexts: Sequence[Hashes], spans: Sequence[list[tuple[int, int]]]) -> set[int]:
    """Return the contexts after which at least half of the documents go on with left-over words."""
    before = [
        found[first - _CONTEXT]
        for found, own in zip(contexts, spans, strict=True)
        for first, _ in own
        if first >= _CONTEXT
    ]
    open_, times = np.unique(np.array(before, np.uint64), return_counts=True)
    joined = np.sort(np.concatenate(contexts)) if contexts else np.empty(0, np.uint64)
    in_all = np.searchsorted(joined, open_, "right") - np.searchsorted(joined, open_, "left")
    is_slot: npt.NDArray[np.bool_] = times >= _SLOT_SHARE * in_all
    return set(open_[is_slot].tolist())


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
