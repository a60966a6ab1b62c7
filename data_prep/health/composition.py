"""What a corpus is made of: size, lengths, genres, domains, and the clauses that it covers."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.cleaning.word_ngrams import words_of
from data_prep.health.corpus import Corpus
from data_prep.health.diversity import evenness
from data_prep.health.figures import Bars, Figure, Section, Table
from data_prep.health.values import HealthValues

_BINS = 16
_SHOWN = 40


def measure_size(corpus: Corpus) -> Section:
    """Measure how many documents and words there are, and how they are spread over documents."""
    lengths = np.array([len(words_of(document.text)) for document in corpus.documents])
    p10, median, p90 = np.quantile(lengths, (0.1, 0.5, 0.9), method="nearest").tolist()
    figures = [
        Figure("rows", "documents", len(lengths), "count"),
        Figure("words", "words", int(lengths.sum()), "count"),
        Figure("words_p10", "words of a document, 10th percentile", p10, "count"),
        Figure("words_median", "words of a document, median", median, "count"),
        Figure("words_p90", "words of a document, 90th percentile", p90, "count"),
        Figure("words_max", "words of the longest document", int(lengths.max()), "count"),
    ]
    return Section("Size", figures, bars=_bars(lengths))


def _bars(lengths: "np.typing.NDArray[np.int64]") -> Bars:
    edges = np.histogram_bin_edges(lengths, _BINS)
    counts, _ = np.histogram(lengths, edges)
    labels = [f"{low:,.0f}" for low in edges[:-1]]
    return Bars("Words of a document", labels, counts.tolist())


def measure_composition(corpus: Corpus, values: HealthValues | None) -> Section:
    """Measure genres, domains and clauses."""
    documents = corpus.documents
    figures, tables = [], []
    for name, title, found in (
        ("genres", "genre", [document.doc_type for document in documents]),
        ("domains", "domain", [document.domain for document in documents]),
    ):
        counts = Counter(value for value in found if value is not None)
        field = "doc_type" if name == "genres" else "domain"
        note = "" if counts else f"no row has {field}"
        even = evenness(counts)
        figures += [
            Figure(name, f"{title}s", len(counts) if counts else None, "count", note),
            Figure(
                f"{title}_evenness",
                f"evenness of {title}s (1: all alike)",
                even,
                "number",
                "" if even is not None else note or f"a single {title}",
            ),
        ]
        if counts:
            tables.append(count_table(name, f"Documents by {title}", counts, len(documents)))
    clauses = _clauses([document.clause_ids for document in documents], values)
    return Section("Composition", figures + clauses.figures, tables + clauses.tables)


def count_table(name: str, title: str, counts: Counter[str], total: int) -> Table:
    """Return a table of counts and shares, the largest first."""
    rows = [
        (value, f"{count:,}", f"{count / total:.1%}") for value, count in counts.most_common(_SHOWN)
    ]
    if len(counts) > _SHOWN:
        title += f" (the first {_SHOWN} of {len(counts):,})"
    return Table(name, title, ("value", "documents", "share"), rows)


def _clauses(cited: Sequence[Iterable[str]], values: HealthValues | None) -> Section:
    counts = Counter(clause for clauses in cited for clause in set(clauses))
    expected = values.clauses if values is not None else ()
    for clause in expected:
        counts.setdefault(clause, 0)
    with_any = sum(bool(list(clauses)) for clauses in cited)
    covered = sum(counts[clause] > 0 for clause in expected) / len(expected) if expected else None
    missing = "" if expected else "needs `clauses` in --values"
    figures = [
        Figure("with_clauses", "documents that cite a clause", with_any / len(cited), "share"),
        Figure("clause_coverage", "clauses that are cited", covered, "share", missing),
        Figure(
            "least_clause",
            "documents of the clause least cited",
            min(counts.values()) if counts else None,
            "count",
            "" if counts else "no row has clause_ids",
        ),
    ]
    table = count_table("clauses", "Documents by clause", counts, len(cited))
    return Section("", figures, [table] if counts else [])
