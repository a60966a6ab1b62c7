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
from data_prep.health.frames import Mask
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


def facts_of(documents: Sequence[Hashes]) -> list[Hashes]:
    """Return what each document says beyond what they share, sorted; where nothing, its runs."""
    # So that the first words, too, have four before them: 0 is no word's number.
    begin = np.zeros(_SIZE - 1, np.uint64)
    padded = [np.concatenate([begin, words]) for words in documents]
    each = [hashes_of_runs(words, _SIZE) for words in padded]
    before = [hashes_of_runs(words, _SIZE - 1)[:-1] for words in padded]
    if not any(map(len, each)):
        return each
    _, first, run, times = np.unique(
        np.concatenate(each), return_index=True, return_inverse=True, return_counts=True
    )
    _, context = np.unique(np.concatenate(before)[first], return_inverse=True)
    places = np.bincount(context, weights=times)[context][run]
    most = np.zeros(len(times), np.int64)
    np.maximum.at(most, context, times)
    most = most[context][run]
    is_frame = (places >= _LEAST_OF_FRAME) & (most >= _FORESEEN * places)
    is_edit = is_frame & (times[run] < most)
    is_own = places < _LEAST_OF_FRAME
    ends = np.cumsum([len(runs) for runs in each])[:-1]
    parts = (np.split(mask, ends) for mask in (is_frame, is_edit, is_own))
    return [_facts(runs, *masks) for runs, *masks in zip(each, *parts, strict=True)]


def _facts(runs: Hashes, is_frame: Mask, is_edit: Mask, is_own: Mask) -> Hashes:
    if not len(runs):
        return runs
    after_edit = np.convolve(is_edit, np.ones(_SIZE))[: len(runs)] > 0
    found = np.unique(runs[~is_frame & ~(is_own & after_edit)])
    return found if len(found) else np.unique(runs)


def repeated_rows(documents: Sequence[Hashes]) -> tuple[list[int], list[int]]:
    """Return which rows repeat an earlier one: by words alone, and with their facts.

    Raises:
        MissingExtraError: The package `rensa` is not installed.
    """
    feature = "near duplicates in `msm prep health`"
    by_words = KeptRows(_THRESHOLD, feature=feature)
    with_facts = KeptRows(_THRESHOLD, feature=feature)
    facts = facts_of(documents)
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

        if not with_facts.add_if_no_match(place, "", facts[place], is_match=is_near):
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
