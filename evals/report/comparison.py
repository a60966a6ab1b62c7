"""Every number that the report shows, computed once: levels, changes and verdicts by evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

from evals.statistics.paired import paired_difference, verdict
from megatron_msm.formats.eval_result import EvalResult, Interval, Metric, Summary


@dataclass(frozen=True)
class Line:
    """One model's numbers on one group."""

    label: str
    summary: Summary
    """The headline."""
    others: tuple[tuple[Metric, Summary], ...]
    """Every other metric."""
    change: Interval | None
    """Paired difference to the first result; None for the first itself."""


@dataclass(frozen=True)
class Verdict:
    """What one model's change against the first shows, over all items and by group."""

    label: str
    text: str
    shows_effect: bool
    by_group: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation; the first is what others are compared with."""

    results: tuple[EvalResult, ...]
    groups: dict[str | None, tuple[Line, ...]]
    """All items (None) and then each group: a line a result."""
    verdicts: tuple[Verdict, ...]
    single: str | None
    """What the only result shows; None where there are several."""

    @property
    def first(self) -> EvalResult:
        """What others are compared with."""
        return self.results[0]


def compare(results: Sequence[EvalResult]) -> list[Evaluation]:
    """Sort results by evaluation and compute each one's statistics.

    Raises:
        DataFormatError: Two of one evaluation were not measured alike.
    """
    by_name: dict[str, list[EvalResult]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    return [_evaluation(tuple(named)) for named in by_name.values()]


def _evaluation(results: tuple[EvalResult, ...]) -> Evaluation:
    first = results[0]
    names: list[str | None] = [None, *first.headline_metric.groups]
    groups = {name: tuple(_line(first, result, name) for result in results) for name in names}
    return Evaluation(
        results=results,
        groups=groups,
        verdicts=tuple(
            _verdict(first.headline_metric, {name: lines[n] for name, lines in groups.items()})
            for n in range(1, len(results))
        ),
        single=_single_verdict(first) if len(results) == 1 else None,
    )


def _line(first: EvalResult, result: EvalResult, group: str | None) -> Line:
    def summary(metric: Metric) -> Summary:
        return metric.overall if group is None else metric.groups[group]

    headline = result.headline_metric
    return Line(
        label=result.model.label,
        summary=summary(headline),
        others=tuple((m, summary(m)) for m in result.metrics if m is not headline),
        change=None if result is first else paired_difference(first, result, group=group),
    )


def _verdict(metric: Metric, lines: dict[str | None, Line]) -> Verdict:
    changes = {group: line.change for group, line in lines.items() if line.change is not None}
    overall = changes[None]
    return Verdict(
        label=lines[None].label,
        text=verdict(overall, metric),
        shows_effect=overall.is_above_zero or overall.is_below_zero,
        by_group=tuple(
            f"{group}: {verdict(change, metric)}"
            for group, change in changes.items()
            if group is not None
        ),
    )


def _single_verdict(result: EvalResult) -> str:
    metric = result.headline_metric
    level = metric.overall
    if not metric.higher_means or not metric.lower_means:
        return f"{metric.title} {signed(level)}, {metric.unit}"
    if not (level.is_above_zero or level.is_below_zero):
        return f"no preference shown, {metric.title} {signed(level)}: the interval includes zero"
    preferred = metric.higher_means if level.is_above_zero else metric.lower_means
    return f"prefers `{preferred}`, {metric.title} {signed(level)}"


def signed(interval: Interval) -> str:
    """Return estimate and bounds with their signs."""
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:+.2f} (no interval)"
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
