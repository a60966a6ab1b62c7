"""What every measurement returns: named figures and tables, which screen, page and JSON show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from megatron_msm.formats.json_types import JsonRow

Form = Literal["count", "share", "number"]


class Figure(NamedTuple):
    """One figure of a corpus, or of the contrast of two."""

    name: str
    """As `--require` and the JSON name it."""
    title: str
    value: float | None
    """None: not measured; `note` says what is missing."""
    form: Form
    note: str = ""

    @property
    def text(self) -> str:
        """The value as a person reads it."""
        if self.value is None:
            return "-"
        if self.form == "share":
            return f"{self.value:.1%}"
        return f"{self.value:,.0f}" if self.form == "count" else f"{self.value:.3f}"


@dataclass(frozen=True)
class Table:
    """Rows behind a figure."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def as_json(self) -> list[dict[str, str]]:
        """Return the rows as objects."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Bars:
    """A histogram."""

    title: str
    labels: list[str]
    counts: list[int]


@dataclass(frozen=True)
class Section:
    """What one module measured."""

    title: str
    figures: list[Figure]
    tables: list[Table] = field(default_factory=list)
    bars: Bars | None = None


@dataclass(frozen=True)
class CorpusHealth:
    """The figures of one corpus."""

    name: str
    files: list[str]
    sections: list[Section]

    @property
    def figures(self) -> Iterator[Figure]:
        """All figures, in order."""
        return (figure for section in self.sections for figure in section.figures)


@dataclass(frozen=True)
class HealthReport:
    """One corpus, or the two arms of a contrast."""

    corpora: list[CorpusHealth]
    """All with the same sections and figures."""
    contrast: list[Section]
    """What the two arms are to each other; empty for one corpus."""

    def as_json(self) -> JsonRow:
        """Return what `--json` prints, less the gates."""
        return {
            "corpora": [
                {"name": corpus.name, "files": corpus.files, **_sections_as_json(corpus.sections)}
                for corpus in self.corpora
            ],
            "contrast": _sections_as_json(self.contrast) if self.contrast else None,
        }


def _sections_as_json(sections: list[Section]) -> JsonRow:
    figures = [figure for section in sections for figure in section.figures]
    return {
        "figures": {figure.name: figure.value for figure in figures},
        "notes": {figure.name: figure.note for figure in figures if figure.note},
        "tables": {table.name: table.as_json() for section in sections for table in section.tables},
    }
