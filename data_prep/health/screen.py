"""The report on a terminal: a table of figures, the published ones beside them, and the gates."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table as ScreenTable
from rich.text import Text

from data_prep.health.figures import Figure, HealthReport
from data_prep.health.gates import Verdict
from data_prep.health.published import PUBLISHED


def print_report(report: HealthReport, verdicts: Sequence[Verdict], console: Console) -> None:
    """Print everything but the tables behind the figures, which the page and the JSON hold."""
    table = ScreenTable(box=None, pad_edge=False, header_style="bold")
    table.add_column("figure", overflow="fold", ratio=4)
    for corpus in report.corpora:
        table.add_column(Text(corpus.name), justify="right")
    table.add_column("published", overflow="fold", ratio=3)
    for title, rows in _blocks(report):
        table.add_row(Text(title, style="bold"))
        for name, text, values in rows:
            shown = [Text(value, style="dim" if value == "-" else "") for value in values]
            shown += [Text("")] * (len(report.corpora) - len(values))
            label = Text.assemble((name, "cyan"), f"  {text}")
            table.add_row(label, *shown, Text(PUBLISHED.get(name, ""), style="dim"))
    console.print(table)
    for verdict in verdicts:
        mark = Text("met    ", style="green") if verdict.is_met else Text("FAILED ", style="red")
        console.print(mark + Text(f"{verdict.gate}  {verdict.where}: {verdict.shown}"))


def _blocks(report: HealthReport) -> Iterator[tuple[str, list[tuple[str, str, list[str]]]]]:
    """Yield the title of each section and its rows: name, words, a value for each corpus."""
    for sections in zip(*(corpus.sections for corpus in report.corpora), strict=True):
        rows = zip(*(section.figures for section in sections), strict=False)
        yield sections[0].title, [_row(figures) for figures in rows]
    for section in report.contrast:
        yield section.title, [_row((figure,)) for figure in section.figures]


def _row(figures: Sequence[Figure]) -> tuple[str, str, list[str]]:
    notes = list(dict.fromkeys(figure.note for figure in figures if figure.note))
    text = figures[0].title + (f" ({'; '.join(notes)})" if notes else "")
    return figures[0].name, text, [figure.text for figure in figures]
