"""`msm eval contrast`: two results or Inspect logs of the same items, and their change."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evals.report.comparison import compare, signed
from evals.report.findings import Finding
from evals.report.inputs import load_result
from evals.visible_text import visible
from megatron_msm.errors import ConfigError
from megatron_msm.formats.eval_result import EvalResult, Interval, Metric


class ChangeLine(BaseModel):
    """The change of all items or of one group."""

    model_config = ConfigDict(frozen=True)
    group: str | None
    """None: all items."""
    change: Interval
    num_items: int
    num_left_out: int
    """Items that one of the two could not score."""
    p_value: float | None
    p_adjusted: float | None
    correction: str
    text: str


class TwoResults(BaseModel):
    """What two results of one evaluation show."""

    model_config = ConfigDict(frozen=True)
    evaluation: str
    metric: Metric
    before: str
    after: str
    protocol_differences: tuple[str, ...]
    lines: tuple[ChangeLine, ...]


def contrast_two(
    before: Path,
    after: Path,
    *,
    metric: str | None = None,
    cluster: str | None = None,
    group: str | None = None,
    across_protocols: bool = False,
) -> TwoResults:
    """Return the change from one result to the other.

    Args:
        before: NAME.json or an Inspect log.
        after: The same of another model.
        metric: Its name; the headline without it.
        cluster: In Inspect logs, the field that says which samples are not independent.
        group: In Inspect logs, the field to group by.
        across_protocols: Take results that were not measured alike.

    Raises:
        DataFormatError: One is broken, or they were not measured alike.
        ConfigError: They have no such metric.
    """
    one, two = (
        _with_headline(load_result(path, cluster=cluster, group=group), metric, path)
        for path in (before, after)
    )
    if across_protocols:
        two = two.model_copy(update={"name": one.name})
    one, two = (
        _labelled(one, f"before: {one.model.label}"),
        _labelled(two, f"after: {two.model.label}"),
    )
    evaluations = compare([one, two], across_protocols=across_protocols)
    if len(evaluations) > 1:
        raise ConfigError(
            f"{before} is of {one.name!r} and {after} of {two.name!r}: two evaluations have no "
            "change. Give two results of one, or --across-protocols if only the name differs."
        )
    (found,) = evaluations
    return TwoResults(
        evaluation=one.name,
        metric=one.headline_metric,
        before=one.model.label,
        after=two.model.label,
        protocol_differences=found.protocol_differences,
        lines=tuple(
            _line(name, line.change)
            for name, lines in found.groups.items()
            for line in lines
            if line.change is not None
        ),
    )


def print_two(found: TwoResults, console: Console) -> None:
    """Print the change: a line for all items, and one a group."""

    def say(text: str) -> None:
        console.print(Text(visible(text)), soft_wrap=True)

    for difference in found.protocol_differences:
        say(f"DIFFERENT PROTOCOLS: {difference}")
    say(f"{found.evaluation}: {found.metric.title}, {found.metric.unit}")
    say(
        f"{found.before} -> {found.after}; paired by item; independent is each "
        f"{found.metric.clustered_by}"
    )
    overall = found.lines[0]
    say(overall.text)
    lines = found.lines if len(found.lines) > 2 else found.lines[:1]
    table = Table(box=None, pad_edge=False)
    for column in ("items", "change [95%]", "paired", "left out", "p", "corrected p"):
        table.add_column(column, justify="left" if column == "items" else "right")
    for line in lines:
        name = "all" if line.group is None else f"{visible(line.group)}"
        p_values = ["-" if p is None else f"{p:.3g}" for p in (line.p_value, line.p_adjusted)]
        counts = [str(line.num_items), str(line.num_left_out)]
        table.add_row(*map(Text, (name, signed(line.change), *counts, *p_values)))
    console.print(table)
    if len(lines) > 1:
        say(f"Corrected p of groups: {lines[1].correction} over the groups.")


def _line(group: str | None, change: Finding) -> ChangeLine:
    return ChangeLine(
        group=group,
        change=change.interval,
        num_items=change.found.num_items,
        num_left_out=change.found.num_left_out,
        p_value=change.found.p_value,
        p_adjusted=change.p_adjusted,
        correction=change.method,
        text=change.text,
    )


def _with_headline(result: EvalResult, metric: str | None, path: Path) -> EvalResult:
    names = [one.name for one in result.metrics]
    if metric is not None and metric not in names:
        raise ConfigError(f"--metric {metric}: {path} has {', '.join(names)}.")
    return result.model_copy(update={"headline": metric or result.headline})


def _labelled(result: EvalResult, label: str) -> EvalResult:
    return result.model_copy(update={"model": result.model.model_copy(update={"label": label})})
