"""Near duplicates of a corpus: rows that repeat an earlier one by words, and with their facts."""

from collections.abc import Sequence

from data_prep.cleaning.dedup import KeptRows, jaccard_of
from data_prep.cleaning.facts import facts_of, runs_of
from data_prep.cleaning.word_ngrams import Hashes
from data_prep.health.corpus import Corpus
from data_prep.health.figures import Figure, Section, Table
from megatron_msm.errors import MissingExtraError

_THRESHOLD = 0.7
"""The default of `msm prep dedup`."""
_SHOWN = 10


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
    for index, words in enumerate(documents):
        runs = runs_of(words)
        if not len(runs):
            continue
        if by_words.nearest_or_add(index, "", runs) is not None:
            near.append(index)

        def is_near(other: int, runs: Hashes = runs) -> bool:
            return jaccard_of(runs, runs_of(documents[other])) >= _THRESHOLD

        if not with_facts.add_if_no_match(index, "", facts[index], is_match=is_near):
            repeated.append(index)
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
    rows = [(corpus.sample[index].where, corpus.sample[index].id or "") for index in repeated]
    title = f"Documents that repeat an earlier one: {min(_SHOWN, len(rows))} of {len(rows):,}"
    table = Table("repeats", title, ("row", "id"), rows[:_SHOWN])
    return Section("Near duplicates", figures, [table] if rows else [])
