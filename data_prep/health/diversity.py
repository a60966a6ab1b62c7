"""How much documents repeat one another: distinct-n and self-BLEU.

Both depend on how much text is compared, so the amount is fixed: distinct-n is taken of the first
100,000 words of a sample, self-BLEU of documents against 60 others, as in the published figures
(where 600 others instead of 60 give .63 instead of .40).
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.cleaning.word_ngrams import Hashes, hashes_of_runs
from data_prep.health.corpus import Corpus
from data_prep.health.figures import Figure, Section

_DISTINCT_WORDS = 100_000
_CANDIDATES = 200
_REFERENCES = 60
_POOL = 2_000
_ORDERS = (1, 2, 3, 4)
_SEED = 1


def distinct_n(documents: Sequence[Hashes], size: int, *, most: int = _DISTINCT_WORDS) -> float:
    """Return different runs of `size` words per run, within documents of `most` words in all."""
    runs, left = [], most
    for words in documents:
        runs.append(hashes_of_runs(words[:left], size))
        left -= min(len(words), left)
    joined = np.concatenate(runs) if runs else np.empty(0, np.uint64)
    return len(np.unique(joined)) / max(len(joined), 1)


class RunCounts(NamedTuple):
    """How often a text holds each of its runs of some size."""

    runs: Hashes
    """Sorted, each once."""
    times: npt.NDArray[np.int64]


def count_runs(words: Hashes) -> list[RunCounts]:
    """Return the runs of one to four words of a text."""
    found = (np.unique(hashes_of_runs(words, n), return_counts=True) for n in _ORDERS)
    return [RunCounts(runs, times.astype(np.int64)) for runs, times in found]


def bleu(candidate: Sequence[RunCounts], references: Sequence[Sequence[RunCounts]]) -> float:
    """Return BLEU-4 of a text against several: add-one precisions, the reference nearest in length.

    Source: Papineni et al. 2002; smoothing as in Lin and Och 2004, at every order.
    """
    log_precision = 0.0
    for order, (runs, times) in enumerate(candidate):
        best = np.zeros(len(runs), np.int64)
        theirs = np.concatenate([reference[order].runs for reference in references])
        their_times = np.concatenate([reference[order].times for reference in references])
        if len(runs):
            at = np.minimum(np.searchsorted(runs, theirs), len(runs) - 1)
            same = runs[at] == theirs
            np.maximum.at(best, at[same], their_times[same])
        clipped = int(np.minimum(times, best).sum())
        log_precision += np.log((clipped + 1) / (int(times.sum()) + 1)) / len(_ORDERS)
    length, *lengths = (int(text[0].times.sum()) for text in (candidate, *references))
    nearest = min((abs(other - length), other) for other in lengths)[1]
    brevity = min(0.0, 1 - nearest / max(length, 1))
    return float(np.exp(log_precision + brevity))


def self_bleu(documents: Sequence[Hashes], *, seed: int = _SEED) -> float | None:
    """Return the mean BLEU-4 of up to 200 documents, each against up to 60 others drawn at random.

    None when there are fewer than two documents with words.
    """
    texts = [count_runs(words) for words in documents if len(words)]
    if len(texts) < 2:
        return None
    draw = random.Random(seed)
    indices = draw.sample(range(len(texts)), min(_CANDIDATES, len(texts)))
    scores = []
    for index in indices:
        others = draw.sample(range(len(texts) - 1), min(_REFERENCES, len(texts) - 1))
        references = [texts[other + (other >= index)] for other in others]
        scores.append(bleu(texts[index], references))
    return float(np.mean(scores))


def measure_diversity(corpus: Corpus) -> Section:
    """Measure a corpus."""
    pool = [corpus.words[index] for index in corpus.some(_POOL)]
    total = sum(len(words) for words in pool)
    note = f"of {min(total, _DISTINCT_WORDS):,} words"
    others = min(_REFERENCES, len(pool) - 1)
    figures = [
        Figure(
            f"distinct_{size}",
            f"different runs of {size} words" if size > 1 else "different words",
            distinct_n(pool, size),
            "number",
            note,
        )
        for size in (1, 2, 3)
    ]
    blue = f"{min(_CANDIDATES, len(pool))} documents against {others} others each"
    figures.append(Figure("self_bleu", "self-BLEU", self_bleu(pool), "number", blue))
    return Section("Diversity", figures)


def evenness(counts: Counter[str]) -> float | None:
    """Return the entropy of a distribution as a share of the largest possible; None for one kind.

    Source: Pielou 1966.
    """
    if len(counts) < 2:
        return None
    shares = np.array(list(counts.values()), np.float64) / counts.total()
    return float(-(shares * np.log(shares)).sum() / np.log(len(shares)))
