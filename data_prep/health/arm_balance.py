"""Whether two arms differ in the manipulated variable only, and in what else they do.

Size, lengths, genres, domains, clauses, names and phrases. Names and phrases in which the value
patterns find something are left out, as they are what the arms are meant to differ in.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_prep.cleaning.word_ngrams import words_of
from data_prep.health.corpus import Corpus
from data_prep.health.figures import Figure, Section, Table
from data_prep.health.frames import SharedRuns, common_phrases
from data_prep.health.names import names_of
from data_prep.health.values import HealthValues, spaced
from data_prep.reading.records import clause_number

_SHOWN = 15
_MOST = 5_000
_PHRASE_WORDS = 6
_PHRASE_SHARE = 0.05
_FEWEST = 3

Shares = Mapping[str, float]
"""Which share of an arm's documents has each of something."""


class _Gap(NamedTuple):
    """How two arms differ in something that documents have."""

    figure: Figure
    table: Table | None


def measure_balance(one: Corpus, other: Corpus, values: Sequence[HealthValues]) -> Section:
    """Compare two arms.

    The gap of a distribution is the total variation distance: the share of documents that would
    have to change their genre for the arms to agree. Of what a document may have several of, it is
    the largest difference between the arms' shares.
    """
    arms = (one, other)
    rows = [len(arm.documents) for arm in arms]
    lengths = [np.array([len(words_of(d.text)) for d in arm.documents]) for arm in arms]
    gaps = [
        _distribution_gap(arms, "genre", "doc_type"),
        _distribution_gap(arms, "domain", "domain"),
        _share_gap(arms, "clause", "cite a clause", _clause_shares(arms), "clause_ids"),
        _share_gap(arms, "name", "hold a name", [_name_shares(arm, values) for arm in arms]),
        _share_gap(arms, "phrase", "hold a phrase", _phrase_shares(arms, values)),
    ]
    figures = [
        Figure("row_ratio", "documents, larger arm to smaller", larger_to_smaller(rows), "number"),
        Figure(
            "word_ratio",
            "words, larger arm to smaller",
            larger_to_smaller([int(own.sum()) for own in lengths]),
            "number",
        ),
        _length_gap(lengths[0], lengths[1]),
        *(gap.figure for gap in gaps),
        _paired(one, other),
    ]
    return Section("Balance of the arms", figures, [gap.table for gap in gaps if gap.table])


def larger_to_smaller(amounts: Sequence[int]) -> float:
    """Return how many times the smallest amount the largest one is."""
    return max(amounts) / max(min(amounts), 1)


def total_variation(one: Counter[str], other: Counter[str]) -> float:
    """Return half the summed differences of two distributions."""
    a, b = one.total(), other.total()
    return sum(abs(one[key] / a - other[key] / b) for key in one | other) / 2


def _length_gap(one: "np.typing.NDArray[np.int64]", other: "np.typing.NDArray[np.int64]") -> Figure:
    """Return the largest difference between the shares of documents up to a length.

    Source: the two-sample statistic of Kolmogorov and Smirnov.
    """
    at = np.unique(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(own), at, side="right") / len(own) for own in (one, other)]
    differences = np.abs(below[0] - below[1])
    index = int(differences.argmax())
    shares = " and ".join(f"{float(own[index]):.1%}" for own in below)
    return Figure(
        "length_gap",
        "largest difference in the share of documents up to a length",
        float(differences[index]),
        "share",
        f"{at[index]} words: {shares}" if differences[index] else "",
    )


def _distribution_gap(arms: tuple[Corpus, Corpus], name: str, field: str) -> _Gap:
    counts = [Counter(v for d in arm.documents if (v := getattr(d, field))) for arm in arms]
    title = f"documents whose {name} would have to change"
    if not all(counts):
        missing = Figure(f"{name}_gap", title, None, "share", f"an arm has no {field}")
        return _Gap(missing, None)
    shares = [{key: n / own.total() for key, n in own.items()} for own in counts]
    gap = total_variation(counts[0], counts[1])
    return _gap(arms, name, title, gap, _differences(shares[0], shares[1]))


def _share_gap(
    arms: tuple[Corpus, Corpus], name: str, what: str, shares: Sequence[Shares], field: str = ""
) -> _Gap:
    title = f"largest difference in the share of documents that {what}"
    if field and not all(shares):
        missing = Figure(f"{name}_gap", title, None, "share", f"an arm has no {field}")
        return _Gap(missing, None)
    differences = _differences(shares[0], shares[1])
    largest = abs(differences[0][1] - differences[0][2]) if differences else 0.0
    return _gap(arms, name, title, largest, differences)


def _gap(
    arms: tuple[Corpus, Corpus],
    name: str,
    title: str,
    gap: float,
    differences: Sequence[tuple[str, float, float]],
) -> _Gap:
    """Return a figure that names what differs most, and a table of what differs or is held."""
    note = ""
    if gap:
        key, a, b = differences[0]
        note = f"{key}: {a:.1%} and {b:.1%}"
    listed = [(key, f"{a:.1%}", f"{b:.1%}") for key, a, b in differences[:_SHOWN]]
    columns = (name, arms[0].name, arms[1].name)
    table = Table(f"{name}_gaps", f"{name.capitalize()}s by difference", columns, listed)
    return _Gap(Figure(f"{name}_gap", title, gap, "share", note), table if listed else None)


def _differences(one: Shares, other: Shares) -> list[tuple[str, float, float]]:
    """Return each key with its shares in both arms, the largest difference first."""
    both = [(key, one.get(key, 0.0), other.get(key, 0.0)) for key in {**one, **other}]
    return sorted(both, key=lambda entry: (-abs(entry[1] - entry[2]), entry[0]))


def _clause_shares(arms: tuple[Corpus, Corpus]) -> list[Shares]:
    """Return the shares by the clauses' numbers: P3 of one spec is L3 of its twin.

    Where a spec has two clauses of one number, clauses are told apart by their whole ids.
    """
    ids = [{clause for d in arm.documents for clause in d.clause_ids} for arm in arms]
    is_told = all(len({clause_number(clause) for clause in own}) == len(own) for own in ids)
    key: Callable[[str], str] = clause_number if is_told else str
    return [
        _shares({key(clause) for clause in d.clause_ids} for d in arm.documents) for arm in arms
    ]


def _name_shares(arm: Corpus, values: Sequence[HealthValues]) -> Shares:
    indices = arm.some(_MOST)
    found = names_of(arm.sample[index].text for index in indices)
    return {name: n / len(indices) for name, n in found.items() if _is_no_value(name, values)}


def _phrase_shares(arms: tuple[Corpus, Corpus], values: Sequence[HealthValues]) -> list[Shares]:
    """Return the shares of phrases that are common in one of the arms."""
    phrases: set[str] = set()
    texts = [[arm.sample[index].text for index in arm.some(_MOST)] for arm in arms]
    for arm, own in zip(arms, texts, strict=True):
        shared = SharedRuns([arm.words[index] for index in arm.some(_MOST)], _PHRASE_WORDS)
        least = max(_FEWEST, int(np.floor(_PHRASE_SHARE * len(own))) + 1)
        found = common_phrases(own, shared, least=least, most=_SHOWN)
        phrases |= {phrase.text for phrase in found if _is_no_value(phrase.text, values)}
    lines = [[spaced(text) for text in own] for own in texts]
    return [
        _shares({phrase for phrase in phrases if f" {phrase} " in line} for line in own)
        for own in lines
    ]


def _shares(held: Iterable[set[str]]) -> Shares:
    each = list(held)
    return {key: n / len(each) for key, n in Counter(key for own in each for key in own).items()}


def _is_no_value(text: str, values: Sequence[HealthValues]) -> bool:
    """Whether a name or phrase holds no word of a value."""
    return not any(given.value_pattern.search(spaced(text)) for given in values)


def _paired(one: Corpus, other: Corpus) -> Figure:
    ids = [{document.id for document in arm.documents} - {None} for arm in (one, other)]
    union = len(ids[0] | ids[1])
    value = len(ids[0] & ids[1]) / union if union else None
    note = "" if union else "no row has an id"
    return Figure("paired", "ids that both arms have", value, "share", note)
