"""The table of results at the quickstart's end."""

from collections.abc import Sequence
from pathlib import Path

from megatron_msm.formats.eval_result import Summary, load_eval_result
from megatron_msm.name_table import NameTable


def result_table(paths: Sequence[tuple[str, Path]]) -> NameTable:
    """Return a table of an evaluation's metrics with 95% intervals, a row per model and group.

    Args:
        paths: (the model's name, its result).
    """
    results = [load_eval_result(path) for _, path in paths]
    titles = [metric.title for metric in results[0].metrics]
    table = NameTable("model", "items", *titles, right=titles)
    for (name, _), result in zip(paths, results, strict=True):
        for group in (*result.headline_metric.groups, None):
            of_group = [
                metric.overall if group is None else metric.groups[group]
                for metric in result.metrics
            ]
            cells = [
                _with_bounds(summary, metric.unit)
                for metric, summary in zip(result.metrics, of_group, strict=True)
            ]
            table.add_row(name, f"{group or 'all'} ({of_group[0].n})", *cells)
    return table


def _with_bounds(summary: Summary, unit: str) -> str:
    form = "{:.0%}" if unit == "share" else "{:+.3f}"
    estimate = form.format(summary.estimate)
    if summary.low is None or summary.high is None:
        return estimate
    return f"{estimate} [{form.format(summary.low)}, {form.format(summary.high)}]"
