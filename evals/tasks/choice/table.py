"""A forced-choice result on the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evals.statistics.intervals import Interval
from evals.tasks.choice.result import ChoiceResult, Summary
from evals.visible_text import visible


def print_result(result: ChoiceResult, console: Console) -> None:
    """Print which model was asked what, and the numbers by tier."""
    model, items = result.model, result.items
    table = Table(box=None, pad_edge=False)
    table.add_column("items")
    table.add_column(_text(f"chose {result.target}"), justify="right")
    table.add_column("mean log-odds", justify="right")
    table.add_column("order flips", justify="right")
    table.add_column("n", justify="right")
    for tier, summary in result.tiers.items():
        table.add_row(_text(tier), *_cells(summary))
    table.add_row(Text("all", style="bold"), *_cells(result.overall))
    facts = f" · weights {model.weights_sha256[:12]} · {items.path}, split {items.split}"
    console.print(_text(model.label, "bold") + _text(facts), soft_wrap=True)
    console.print(table)
    console.print(_text(f"{result.direction}; intervals are 95%."), soft_wrap=True)
    console.print(_text(f"{result.note}."), soft_wrap=True)


def _cells(summary: Summary) -> list[Text]:
    return [
        Text(_with_bounds(summary.rate, "{:.0%}")),
        Text(_with_bounds(summary.log_odds, "{:+.3f}")),
        Text(f"{summary.num_flips} ({summary.flip_share:.0%})"),
        Text(str(summary.n)),
    ]


def _with_bounds(interval: Interval, form: str) -> str:
    if interval.low is None or interval.high is None:
        return form.format(interval.estimate) + " (no interval)"
    low, high = form.format(interval.low), form.format(interval.high)
    return f"{form.format(interval.estimate)} [{low}, {high}]"


def _text(text: str, style: str = "") -> Text:
    """Return text from a file as it is, never read as rich markup."""
    return Text(visible(text), style=style)
