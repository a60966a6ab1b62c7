"""A forced-choice result on the terminal."""

import unicodedata

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evals.choice_result import ChoiceResult, Summary
from evals.intervals import Interval

UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Control, invisible formatting (text direction), surrogates, line separators."""


def terminal_safe(text: str, style: str = "") -> Text:
    """Return text from a file so that it can neither move the cursor nor be read as rich markup."""
    safe = (
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in UNSAFE_CATEGORIES else char
        for char in text
    )
    return Text("".join(safe), style=style)


def print_result(result: ChoiceResult, console: Console) -> None:
    """Print which model was asked what, and the numbers by tier."""
    model, items = result.model, result.items
    table = Table(box=None, pad_edge=False)
    table.add_column("items")
    table.add_column(terminal_safe(f"chose {result.target}"), justify="right")
    table.add_column("mean log-odds", justify="right")
    table.add_column("order flips", justify="right")
    table.add_column("n", justify="right")
    for tier, summary in result.tiers.items():
        table.add_row(terminal_safe(tier), *_cells(summary))
    table.add_row(Text("all", style="bold"), *_cells(result.overall))
    facts = f" · weights {model.weights_sha256[:12]} · {items.path}, split {items.split}"
    console.print(terminal_safe(model.label, "bold") + terminal_safe(facts), soft_wrap=True)
    console.print(table)
    console.print(terminal_safe(f"{result.direction}; intervals are 95%."), soft_wrap=True)
    console.print(terminal_safe(f"{result.note}."), soft_wrap=True)


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
