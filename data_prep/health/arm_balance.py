"""Whether two arms differ in the manipulated variable only: size, genres, domains, names."""

from collections import Counter
from collections.abc import Sequence

from data_prep.cleaning.word_ngrams import words_of
from data_prep.health.corpus import Corpus
from data_prep.health.figures import Figure, Section, Table
from data_prep.health.names import names_of
from data_prep.health.values import HealthValues, spaced

_SHOWN = 15
_MOST = 5_000


def measure_balance(one: Corpus, other: Corpus, values: Sequence[HealthValues]) -> Section:
    """Compare two arms.

    The gap of a distribution is the total variation distance: the share of documents that would
    have to change their genre for the arms to agree. Names that the value patterns find are left
    out, as they are what the arms are meant to differ in.
    """
    arms = (one, other)
    words = [sum(len(words_of(d.text)) for d in arm.documents) for arm in arms]
    genres = [Counter(d.doc_type for d in arm.documents if d.doc_type) for arm in arms]
    domains = [Counter(d.domain for d in arm.documents if d.domain) for arm in arms]
    names = [_name_shares(arm, values) for arm in arms]
    gaps = _gaps(names[0], names[1])
    rows = [len(arm.documents) for arm in arms]
    figures = [
        Figure("row_ratio", "documents, larger arm to smaller", max(rows) / min(rows), "number"),
        Figure("word_ratio", "words, larger arm to smaller", _ratio(words), "number"),
        _gap_figure("genre_gap", "documents whose genre would have to change", genres, "doc_type"),
        _gap_figure("domain_gap", "documents whose domain would have to change", domains, "domain"),
        Figure(
            "name_gap",
            "largest difference in the share of documents that hold a name",
            abs(gaps[0][1] - gaps[0][2]) if gaps else 0.0,
            "share",
            gaps[0][0] if gaps else "",
        ),
        _paired(one, other),
    ]
    listed = [(name, f"{a:.1%}", f"{b:.1%}") for name, a, b in gaps[:_SHOWN]]
    table = Table("name_gaps", "Names by difference", ("name", one.name, other.name), listed)
    return Section("Balance of the arms", figures, [table] if listed else [])


def _ratio(amounts: Sequence[int]) -> float:
    return max(amounts) / max(min(amounts), 1)


def total_variation(one: Counter[str], other: Counter[str]) -> float:
    """Return half the summed differences of two distributions."""
    a, b = one.total(), other.total()
    return sum(abs(one[key] / a - other[key] / b) for key in one | other) / 2


def _gap_figure(name: str, title: str, counts: Sequence[Counter[str]], field: str) -> Figure:
    if not all(counts):
        return Figure(name, title, None, "share", f"an arm has no {field}")
    return Figure(name, title, total_variation(counts[0], counts[1]), "share")


def _name_shares(arm: Corpus, values: Sequence[HealthValues]) -> dict[str, float]:
    places = arm.some(_MOST)
    found = names_of(arm.sample[place].text for place in places)
    total = len(places)
    return {
        name: count / total
        for name, count in found.items()
        if not any(given.value_pattern.search(spaced(name)) for given in values)
    }


def _gaps(one: dict[str, float], other: dict[str, float]) -> list[tuple[str, float, float]]:
    """Return each name with its shares in both arms, the largest difference first."""
    both = [(name, one.get(name, 0.0), other.get(name, 0.0)) for name in one | other]
    return sorted(both, key=lambda entry: (-abs(entry[1] - entry[2]), entry[0]))


def _paired(one: Corpus, other: Corpus) -> Figure:
    ids = [{document.id for document in arm.documents} - {None} for arm in (one, other)]
    union = len(ids[0] | ids[1])
    value = len(ids[0] & ids[1]) / union if union else None
    note = "" if union else "no row has an id"
    return Figure("paired", "ids that both arms have", value, "share", note)
