"""Frames: runs of words that many documents share, which is how a template shows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.cleaning.word_ngrams import Hashes, hashes_of_runs, words_of
from data_prep.health.corpus import Corpus
from data_prep.health.figures import Figure, Section, Table

Mask = npt.NDArray[np.bool_]
_SIZE = 6
_SHARE_OF_FRAME = 0.02
_FEWEST = 3
_SHARE_OF_OUTLIER = 0.05
_SHOWN = 15
_SAME_PHRASE = 0.8
"""Runs that overlap are one phrase while so many of its documents hold the next one too."""


class SharedRuns:
    """How many documents hold each run of words.

    Args:
        documents: The words of each.
        size: Words of a run.
    """

    def __init__(self, documents: Sequence[Hashes], size: int) -> None:
        self.size = size
        self._documents = documents
        each = [np.unique(hashes_of_runs(words, size)) for words in documents]
        joined = np.concatenate(each) if each else np.empty(0, np.uint64)
        runs, counts = np.unique(joined, return_counts=True)
        shared = counts >= 2
        self._runs, self._counts = runs[shared], counts[shared]

    def counts(self, index: int) -> npt.NDArray[np.int64]:
        """Return for each run of a document how many documents hold it, itself included."""
        runs = hashes_of_runs(self._documents[index], self.size)
        at = np.searchsorted(self._runs, runs)
        at[at == len(self._runs)] = 0
        if not len(self._runs):
            return np.ones(len(runs), np.int64)
        return np.where(self._runs[at] == runs, self._counts[at], 1).astype(np.int64)

    def covered(self, index: int, *, least: int) -> Mask:
        """Return for each word of a document whether a run of `least` documents covers it."""
        return cover(self.counts(index) >= least, self.size, len(self._documents[index]))


def cover(starts: Mask, size: int, length: int) -> Mask:
    """Return which of `length` words lie in runs of `size` words that begin where `starts` is."""
    edges = np.zeros(length + 1, np.int64)
    indices = np.flatnonzero(starts)
    edges[indices] += 1
    np.subtract.at(edges, np.minimum(indices + size, length), 1)
    return np.cumsum(edges)[:length] > 0


class Phrase(NamedTuple):
    """A run of words as long as it is shared."""

    text: str
    documents: int


def common_phrases(
    texts: Sequence[str], shared: SharedRuns, *, least: int, most: int
) -> list[Phrase]:
    """Return phrases that at least so many documents hold, the commonest first."""
    found: dict[str, int] = {}
    for index, text in enumerate(texts):
        counts = shared.counts(index)
        if not (counts >= least).any():
            continue
        words = words_of(text)
        for first, last, documents in _stretches(counts, least):
            phrase = " ".join(words[first : last + shared.size])
            found[phrase] = max(found.get(phrase, 0), documents)
    ordered = sorted(found.items(), key=lambda entry: (-entry[1], -len(entry[0]), entry[0]))
    kept: list[Phrase] = []
    for phrase, documents in ordered:
        if len(kept) == most:
            break
        if not any(f" {phrase} " in f" {other.text} " for other in kept):
            kept.append(Phrase(phrase, documents))
    return kept


def _stretches(counts: npt.NDArray[np.int64], least: int) -> list[tuple[int, int, int]]:
    """Return first run, last run and documents of each phrase of one document."""
    stretches: list[tuple[int, int, int]] = []
    for index, count in enumerate(counts.tolist()):
        if count < least:
            continue
        if stretches:
            first, last, documents = stretches[-1]
            low, high = sorted((count, documents))
            if last == index - 1 and low >= _SAME_PHRASE * high:
                stretches[-1] = first, index, high
                continue
        stretches.append((index, index, count))
    return stretches


def measure_frames(corpus: Corpus) -> Section:
    """Measure how much of the text is shared, and by which phrases."""
    shared = SharedRuns(corpus.words, _SIZE)
    total = len(corpus.sample)
    least = max(_FEWEST, int(np.ceil(_SHARE_OF_FRAME * total)))
    covered = [shared.covered(index, least=least) for index in range(total)]
    words = sum(len(mask) for mask in covered)
    share = sum(int(mask.sum()) for mask in covered) / max(words, 1)
    top = max((int(shared.counts(index).max(initial=1)) for index in range(total)), default=1)
    outlier = max(_FEWEST, int(np.floor(_SHARE_OF_OUTLIER * total)) + 1)
    texts = [document.text for document in corpus.sample]
    phrases = common_phrases(texts, shared, least=outlier, most=_SHOWN)
    figures = [
        Figure(
            "frame_share",
            f"words in runs of {_SIZE} or more that {least:,} documents share",
            share,
            "share",
            corpus.sample_note,
        ),
        Figure(
            "top_phrase",
            f"documents that hold the commonest run of {_SIZE} words",
            top / total if top > 1 else 0.0,
            "share",
            corpus.sample_note,
        ),
    ]
    rows = [(phrase.text, f"{phrase.documents:,}", f"{phrase.documents / total:.1%}")
            for phrase in phrases]  # fmt: skip
    title = f"Phrases of {_SIZE} or more words in over {_SHARE_OF_OUTLIER:.0%} of documents"
    table = Table("phrases", title, ("phrase", "documents", "share"), rows)
    return Section("Templates", figures, [table] if rows else [])
