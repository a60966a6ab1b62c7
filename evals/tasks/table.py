"""An evaluation's result on the terminal."""

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evals.visible_text import visible
from megatron_msm.formats.eval_result import EvalResult, Metric, Summary

MAX_COLUMNS = 4
"""Metrics that are shown by group; the others are shown over all items."""


def print_result(result: EvalResult, console: Console) -> None:
    """Print which model was asked what, and the numbers by group."""
    model, headline = result.model, result.headline_metric
    table = Table(box=None, pad_edge=False)
    table.add_column("items")
    by_group = result.metrics[:MAX_COLUMNS]
    for metric in by_group:
        table.add_column(_text(metric.title), justify="right")
    table.add_column("n", justify="right")
    for group, of_group in headline.groups.items():
        cells = [_cell(metric, metric.groups[group]) for metric in by_group]
        table.add_row(_text(group), *cells, Text(str(of_group.n)))
    cells = [_cell(metric, metric.overall) for metric in by_group]
    table.add_row(Text("all", style="bold"), *cells, Text(str(headline.overall.n)))
    weights = f"weights {model.weights_sha256[:12]}" if model.weights_sha256 else model.path
    facts = f" · {weights} · {result.items} · protocol {result.protocol_sha256[:12]}"
    console.print(_text(model.label, "bold") + _text(facts), soft_wrap=True)
    console.print(table)
    for metric in result.metrics[MAX_COLUMNS:]:
        console.print(_text(f"{metric.title}: ") + _cell(metric, metric.overall), soft_wrap=True)
    console.print(_text(f"{result.meaning}; intervals are 95%."), soft_wrap=True)
    console.print(_text(f"{result.note}."), soft_wrap=True)


def _cell(metric: Metric, summary: Summary) -> Text:
    text = shown(summary, metric.unit)
    return Text(f"{text}, {summary.num_unscored} unscored" if summary.num_unscored else text)


def shown(summary: Summary, unit: str) -> str:
    """Return an estimate with its bounds, shares in percent."""
    form = "{:.0%}" if unit == "share" else "{:+.3f}"
    if math.isnan(summary.estimate):
        return "none"
    estimate = form.format(summary.estimate)
    if summary.low is None or summary.high is None:
        return estimate + " (no interval)"
    return f"{estimate} [{form.format(summary.low)}, {form.format(summary.high)}]"


def _text(text: str, style: str = "") -> Text:
    """Return text from a file as it is, never read as rich markup."""
    return Text(visible(text), style=style)
