"""The table of results at the quickstart's end."""

from collections.abc import Sequence
from pathlib import Path

from megatron_msm.formats.eval_result import EvalResult, load_eval_result
from megatron_msm.name_table import NameTable


def load_results(paths: Sequence[tuple[str, Path]]) -> list[tuple[str, EvalResult]]:
    """Return (the model's name, its result).

    Raises:
        ConfigError: A file is not such a result.
    """
    return [(name, load_eval_result(path)) for name, path in paths]


def result_table(results: Sequence[tuple[str, EvalResult]]) -> NameTable:
    """Return a table of an evaluation's headline, a row per model and a column per group."""
    headline = results[0][1].headline_metric
    columns = [f"{group} ({of_group.n})" for group, of_group in headline.groups.items()]
    table = NameTable("model", *columns, right=columns)
    form = "{:.0%}" if headline.unit == "share" else "{:+.2f}"
    for name, result in results:
        groups = result.headline_metric.groups
        table.add_row(name, *(form.format(groups[group].estimate) for group in headline.groups))
    return table


def leading_verdicts(verdicts: Sequence[str], contrasts: Sequence[str]) -> list[str]:
    """Leave out the changes from the base where there are contrasts; cautions stay.

    A verdict over all items is a line, and those of its groups stand indented below it.
    """
    names = tuple(f"{text.partition('=')[0]}: " for text in contrasts)
    if not names:
        return list(verdicts)
    kept: list[str] = []
    is_kept = True
    for line in verdicts:
        if not line.startswith(" "):
            is_kept = line.startswith(names) or ", compared with " not in line
        kept += [line] if is_kept else []
    return kept
