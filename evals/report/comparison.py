"""Every number that the report shows, computed once: levels, changes, contrasts and verdicts.

Results are sorted by evaluation and then by arm: `ARM#SEED` is one training seed of `ARM`.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.report.findings import Finding, findings
from evals.statistics.contrast import contrast, training_runs
from evals.statistics.intervals import Variance, rate_interval_of
from evals.statistics.paired import check_comparable, differences_in_protocol
from megatron_msm.errors import ConfigError
from megatron_msm.formats.eval_result import EvalResult, Interval, Metric, Summary

logger = logging.getLogger(__name__)

MAX_GROUPS_TOLD = 6
"""With more groups, verdicts speak of all items; pictures and tables show the groups."""

Arms = Mapping[str, Sequence[EvalResult]]
"""The results of each arm, one a training seed; the first arm is what others are compared with."""


@dataclass(frozen=True)
class Line:
    """One arm's numbers on one group."""

    label: str
    num_seeds: int
    summary: Summary
    """The headline."""
    others: tuple[tuple[Metric, Summary], ...]
    """Every other metric."""
    change: Finding | None
    """Paired difference to the first arm; None for the first itself."""

    def of(self, metric: str, *, headline: str) -> Summary:
        """Return the arm's level of a metric."""
        if metric == headline:
            return self.summary
        return next(summary for one, summary in self.others if one.name == metric)


@dataclass(frozen=True)
class NamedContrast:
    """A contrast that was asked for, over all items (None) and by group."""

    name: str
    weights: Mapping[str, float]
    """By arm."""
    groups: Mapping[str | None, Finding]

    @property
    def terms(self) -> str:
        """`+ A - B`, in words of the arms."""
        return " ".join(f"{'+' if w > 0 else '-'} {arm}" for arm, w in self.weights.items())

    @property
    def title(self) -> str:
        """Name and terms."""
        return f"{self.name}: {self.terms}"

    @property
    def overall(self) -> Finding:
        """The contrast over all items."""
        return self.groups[None]

    @property
    def told_by_group(self) -> dict[str, Finding]:
        """The contrast of each group, where the groups are few."""
        return _few(self.groups)


@dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation, by arm."""

    arms: Arms
    groups: dict[str | None, tuple[Line, ...]]
    """All items (None) and then each group: a line an arm."""
    single: str | None
    """What the only arm shows; None where there are several."""
    contrasts: tuple[NamedContrast, ...] = ()
    protocol_differences: tuple[str, ...] = ()
    """What results were measured otherwise than the first, and in what."""

    @property
    def first(self) -> EvalResult:
        """The first result of the arm that others are compared with."""
        return next(iter(self.arms.values()))[0]

    @property
    def changes(self) -> tuple[Line, ...]:
        """The lines over all items of the arms that are compared with the first."""
        return tuple(line for line in self.groups[None] if line.change is not None)

    def change_by_group(self, label: str) -> dict[str, Finding]:
        """Return an arm's change in each group, where the groups are few."""
        return _few(
            {
                group: line.change
                for group, lines in self.groups.items()
                for line in lines
                if line.label == label and line.change is not None
            }
        )


def compare(
    results: Sequence[EvalResult],
    contrasts: Sequence[str] = (),
    *,
    across_protocols: bool = False,
) -> list[Evaluation]:
    """Sort results by evaluation and arm, and compute each one's statistics.

    Args:
        results: In the order of the report.
        contrasts: `NAME=+ARM,-ARM,...`, computed for each evaluation that has all its arms.
        across_protocols: Take results that were not measured alike, and say so of them.

    Raises:
        ConfigError: A contrast is malformed, or no evaluation has its arms.
        DataFormatError: Two results of one evaluation were not measured alike.
    """
    by_name: dict[str, dict[str, list[EvalResult]]] = {}
    for result in results:
        arms = by_name.setdefault(result.name, {})
        arms.setdefault(arm_of(result.model.label), []).append(result)
        first = next(iter(arms.values()))[0]
        check_comparable(first, result, across_protocols=across_protocols)
    asked = {text: _weights(text) for text in contrasts}
    for text, weights in asked.items():
        if not any(weights.keys() <= arms.keys() for arms in by_name.values()):
            known = sorted({arm for arms in by_name.values() for arm in arms})
            raise ConfigError(
                f"--contrast {text}: no evaluation has all of these arms. The arms are "
                f"{', '.join(known)}."
            )
    return [_evaluation(arms, asked) for arms in by_name.values()]


def arm_of(label: str) -> str:
    """Return a label without its seed."""
    return re.sub(r"(?<=.)#\d+$", "", label)


def _weights(text: str) -> dict[str, float]:
    _, separator, terms = text.partition("=")
    weights: dict[str, float] = {}
    for term in terms.split(","):
        sign, arm = term.strip()[:1], term.strip()[1:].strip()
        if not separator or sign not in ("+", "-") or not arm or arm in weights:
            raise ConfigError(
                f"--contrast {text}: not of the form NAME=+ARM,-ARM with a sign before each arm, "
                "each arm once. A difference in differences is NAME=+BOTH,-ONE,-OTHER,+NEITHER."
            )
        weights[arm] = 1.0 if sign == "+" else -1.0
    if sum(weights.values()):
        raise ConfigError(f"--contrast {text}: as many arms with + as with - make a contrast.")
    return weights


def _evaluation(arms: Arms, asked: Mapping[str, Mapping[str, float]]) -> Evaluation:
    first, metric = next(iter(arms)), next(iter(arms.values()))[0].headline_metric
    groups: list[str | None] = [None, *_scored_groups(arms, metric)]
    changes = {arm: {arm: 1.0, first: -1.0} for arm in arms if arm != first}
    possible = {text: weights for text, weights in asked.items() if weights.keys() <= arms.keys()}
    compared: list[tuple[str, str, Mapping[str, float]]] = [
        ("change", arm, weights) for arm, weights in changes.items()
    ]
    compared += [("contrast", text, weights) for text, weights in possible.items()]
    found = findings(
        {
            ((kind, name), group): contrast(arms, weights, group=group)
            for kind, name, weights in compared
            for group in groups
        },
        metric,
    )
    lines = {
        group: tuple(
            _line(arms[arm], arm, group, found.get((("change", arm), group))) for arm in arms
        )
        for group in groups
    }
    return Evaluation(
        arms=arms,
        groups=lines,
        single=_single_verdict(metric, lines[None][0].summary) if len(arms) == 1 else None,
        contrasts=tuple(
            NamedContrast(
                name=text.partition("=")[0],
                weights=weights,
                groups={group: found[("contrast", text), group] for group in groups},
            )
            for text, weights in possible.items()
        ),
        protocol_differences=tuple(_protocol_differences(arms)),
    )


def _scored_groups(arms: Arms, metric: Metric) -> list[str]:
    """Return the groups in which every arm has a scored row in common; say which have none."""
    results = [result for of_arm in arms.values() for result in of_arm]
    scored = [
        {(row.group, row.id) for row in result.rows if row.numbers[metric.name] is not None}
        for result in results
    ]
    kept = {group for group, _ in set.intersection(*scored)}
    for group in metric.groups:
        if group not in kept:
            logger.warning(
                "%s: no item of %r could be scored in every result; the group is left out. "
                "See the unscored rows in the results.",
                results[0].name,
                group,
            )
    return [group for group in metric.groups if group in kept]


def _protocol_differences(arms: Arms) -> list[str]:
    first, *others = (result for of_arm in arms.values() for result in of_arm)
    found = {one.model.label: differences_in_protocol(first, one) for one in others}
    return [
        f"`{label}` and `{first.model.label}` differ in their {', '.join(differences)}"
        for label, differences in found.items()
        if differences
    ]


def _line(
    results: Sequence[EvalResult], arm: str, group: str | None, change: Finding | None
) -> Line:
    headline = results[0].headline_metric
    return Line(
        label=results[0].model.label if len(results) == 1 else arm,
        num_seeds=len(training_runs(results)),
        summary=_level(results, headline, group),
        others=tuple(
            (metric, _level(results, metric, group))
            for metric in results[0].metrics
            if metric.name != headline.name
        ),
        change=change,
    )


def _level(results: Sequence[EvalResult], metric: Metric, group: str | None) -> Summary:
    """Return an arm's level: the metric's own statistic of one result, else over its seeds too."""
    if len(results) == 1:
        own = results[0].metric(metric.name)
        return own.overall if group is None else own.groups[group]
    found = contrast({"arm": results}, {"arm": 1.0}, metric=metric.name, group=group)
    interval = found.interval
    if metric.unit == "share":
        of_rate = Variance(found.variance, found.dof)
        interval = rate_interval_of(interval.estimate, of_rate, num_independent=found.num_clusters)
    return Summary(**interval.model_dump(), n=found.num_items, num_unscored=found.num_left_out)


def _few(groups: Mapping[str | None, Finding]) -> dict[str, Finding]:
    named = {group: found for group, found in groups.items() if group is not None}
    return named if 1 < len(named) <= MAX_GROUPS_TOLD else {}


def _single_verdict(metric: Metric, level: Summary) -> str:
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
