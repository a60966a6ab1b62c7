"""Can two arms be told apart by anything but the value? AUC of a classifier, value words masked.

Masked are the words of both values and names (capitalised words that do not begin a sentence). What
is left is style, genre, subject and whatever else leaked. The heavier the mask, the lower the AUC,
so the number of masked words is told beside it.

Source: SoM's data-quality figures: masked bag of words, logistic regression, 5 folds, at most 2,000
documents an arm; up to .75 passes there, above .85 fails. Features and penalty
are this project's.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_prep.cleaning.word_ngrams import words_of
from data_prep.health.corpus import Corpus, HealthDocument
from data_prep.health.figures import Figure, Section, Table
from data_prep.health.logistic_regression import Ints, SparseRows, auc, fit, scores
from data_prep.health.names import capitalised
from data_prep.health.values import HealthValues, spaced

_MOST = 2_000
_FOLDS = 5
_PENALTY = 0.1
"""In all; light enough that a single word that gives the arm away is used."""
_SEED = 1
_SHOWN = 12


class Separation(NamedTuple):
    """How well the arms are told apart."""

    auc: float
    num_masked: int
    """Different words that were masked."""
    tells: tuple[list[str], list[str]]
    """The words that speak most for the first arm, and for the second."""


def separate(
    arms: tuple[Sequence[HealthDocument], Sequence[HealthDocument]],
    values: Sequence[HealthValues],
) -> Separation:
    """Train on four fifths of the documents, judge the rest, five times.

    Documents of one id, or of one idea where arms share no ids, stay together: a document and its
    twin of the other arm, one trained on and one judged, would tell on each other.
    """
    documents = [*arms[0], *arms[1]]
    labels = np.repeat([0.0, 1.0], [len(arms[0]), len(arms[1])])
    masked, texts = set[str](), []
    for document in documents:
        words, hidden = mask(document.text, values)
        texts.append(words)
        masked |= hidden
    rows, vocabulary = count_rows(texts)
    folds = _folds(arms)
    judged, summed = np.zeros(len(labels)), np.zeros(rows.num_columns + 1)
    for fold in range(_FOLDS):
        held_out = np.flatnonzero(folds == fold)
        trained = np.flatnonzero(folds != fold)
        if len(held_out) and len(set(labels[trained])) == 2:
            weights = fit(rows.take(trained), labels[trained], penalty=_PENALTY / len(trained))
            judged[held_out] = scores(rows.take(held_out), weights)
            summed += weights
    order = np.argsort(summed[:-1], kind="stable")
    tells = [vocabulary[index] for index in order[:_SHOWN]]
    others = [vocabulary[index] for index in order[::-1][:_SHOWN]]
    return Separation(auc(judged, labels), len(masked), (tells, others))


def mask(text: str, values: Sequence[HealthValues]) -> tuple[list[str], set[str]]:
    """Return the words of a text that are not masked, and the different ones that are."""
    line = spaced(text)
    for given in values:
        line = given.value_pattern.sub(lambda found: "_" * len(found.group()), line)
    # A pattern spans words and the spaces between them; its underscores are no word.
    kept = [word for word in line.split() if "_" not in word]
    names = {part for word in capitalised(text) for part in words_of(word)}
    return [word for word in kept if word not in names], (set(words_of(text)) - set(kept)) | names


def count_rows(texts: Sequence[Sequence[str]]) -> tuple[SparseRows, list[str]]:
    """Return rows of log counts, each of length 1, and the word of each column."""
    columns: dict[str, int] = {}
    entries, values, starts = [], [], [0]
    for words in texts:
        ids = [columns.setdefault(word, len(columns)) for word in words]
        present, times = np.unique(np.array(ids, np.int64), return_counts=True)
        weights = 1 + np.log(times)
        entries.append(present)
        values.append(weights / max(float(np.linalg.norm(weights)), 1e-12))
        starts.append(starts[-1] + len(present))
    rows = SparseRows(
        np.concatenate(entries), np.concatenate(values), np.array(starts, np.int64), len(columns)
    )
    return rows, list(columns)


def _folds(arms: tuple[Sequence[HealthDocument], Sequence[HealthDocument]]) -> Ints:
    """Return [documents of both] the fold of each."""
    keys = _shared_keys(arms)
    draw = random.Random(_SEED)
    fold_of: dict[str, int] = {}
    order = sorted(set(keys))
    draw.shuffle(order)
    for index, key in enumerate(order):
        fold_of[key] = index % _FOLDS
    return np.array([fold_of[key] for key in keys], np.int64)


def _shared_keys(arms: tuple[Sequence[HealthDocument], Sequence[HealthDocument]]) -> list[str]:
    """Return [documents of both] what each shares with its twin; its own number where nothing."""
    own = [f"{side}:{document.number}" for side, arm in enumerate(arms) for document in arm]
    for field in ("id", "idea"):
        sides = [[getattr(document, field) for document in arm] for arm in arms]
        if set(sides[0]) & set(sides[1]) - {None}:
            both = [*sides[0], *sides[1]]
            return [key if key is not None else alone for key, alone in zip(both, own, strict=True)]
    return own


def measure_separability(one: Corpus, other: Corpus, values: Sequence[HealthValues]) -> Section:
    """Measure two arms; without values only names are masked, and the note says so."""
    sides = [[corpus.sample[index] for index in corpus.some(_MOST)] for corpus in (one, other)]
    found = separate((sides[0], sides[1]), values)
    note = f"{found.num_masked:,} different words masked"
    if len(values) < 2:
        note += "; value words of an arm are not, for want of --values and --other-values"
    figure = Figure("auc", "arms told apart, value words masked (AUC)", found.auc, "number", note)
    rows = list(zip(*found.tells, strict=True))
    table = Table("tells", "Words that give the arm away", (one.name, other.name), rows)
    return Section("Separability", [figure], [table])
