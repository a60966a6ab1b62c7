"""Every number that the report shows, computed once: levels, changes, contrasts and verdicts.

Results are sorted by evaluation and then by arm: `ARM#SEED` is one training seed of `ARM`.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.statistics.contrast import Contrast, contrast
from evals.statistics.paired import check_comparable, differences_in_protocol, verdict
from megatron_msm.errors import ConfigError
from megatron_msm.formats.eval_result import EvalResult, Interval, Metric, Summary

logger = logging.getLogger(__name__)

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
    change: Interval | None
    """Paired difference to the first arm; None for the first itself."""
    detectable: float | None = None
    """Smallest change that would be found in 4 of 5 such studies."""


@dataclass(frozen=True)
class Verdict:
    """What one arm's change against the first shows, over all items and by group."""

    label: str
    text: str
    shows_effect: bool
    by_group: tuple[str, ...]


@dataclass(frozen=True)
class NamedContrast:
    """A contrast that was asked for."""

    name: str
    terms: str
    """`+ A - B`, in words of the arms."""
    found: Contrast
    text: str


@dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation, by arm."""

    arms: Arms
    groups: dict[str | None, tuple[Line, ...]]
    """All items (None) and then each group: a line an arm."""
    verdicts: tuple[Verdict, ...]
    single: str | None
    """What the only arm shows; None where there are several."""
    contrasts: tuple[NamedContrast, ...] = ()
    protocol_differences: tuple[str, ...] = ()
    """What results were measured otherwise than the first, and in what."""

    @property
    def first(self) -> EvalResult:
        """The first result of the arm that others are compared with."""
        return next(iter(self.arms.values()))[0]


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
    names: list[str | None] = [None, *_scored_groups(arms, metric)]
    groups = {name: tuple(_line(arms, first, arm, name) for arm in arms) for name in names}
    return Evaluation(
        arms=arms,
        groups=groups,
        verdicts=tuple(
            _verdict(metric, {name: lines[n] for name, lines in groups.items()})
            for n in range(1, len(arms))
        ),
        single=_single_verdict(metric, groups[None][0].summary) if len(arms) == 1 else None,
        contrasts=tuple(
            _named_contrast(arms, text, weights, metric)
            for text, weights in asked.items()
            if weights.keys() <= arms.keys()
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


def _line(arms: Arms, first: str, arm: str, group: str | None) -> Line:
    results = arms[arm]
    headline = results[0].headline_metric
    change = None
    if arm != first:
        change = contrast(arms, {arm: 1.0, first: -1.0}, group=group)
    return Line(
        label=results[0].model.label if len(results) == 1 else arm,
        num_seeds=len(results),
        summary=_level(results, headline, group),
        others=tuple(
            (metric, _level(results, metric, group))
            for metric in results[0].metrics
            if metric.name != headline.name
        ),
        change=None if change is None else change.interval,
        detectable=None if change is None else change.detectable,
    )


def _level(results: Sequence[EvalResult], metric: Metric, group: str | None) -> Summary:
    """Return an arm's level: the metric's own statistic of one result, else over its seeds too."""
    if len(results) == 1:
        own = results[0].metric(metric.name)
        return own.overall if group is None else own.groups[group]
    found = contrast({"arm": results}, {"arm": 1.0}, metric=metric.name, group=group)
    return Summary(
        **found.interval.model_dump(), n=found.num_items, num_unscored=found.num_left_out
    )


def _named_contrast(
    arms: Arms, text: str, weights: Mapping[str, float], metric: Metric
) -> NamedContrast:
    found = contrast(arms, weights)
    terms = " ".join(f"{'+' if weight > 0 else '-'} {arm}" for arm, weight in weights.items())
    shown = _with_floor(verdict(found.interval, metric), found.interval, found.detectable)
    return NamedContrast(text.partition("=")[0], terms, found, shown)


def _verdict(metric: Metric, lines: dict[str | None, Line]) -> Verdict:
    texts = {
        group: _with_floor(verdict(line.change, metric), line.change, line.detectable)
        for group, line in lines.items()
        if line.change is not None
    }
    overall = lines[None].change
    return Verdict(
        label=lines[None].label,
        text=texts[None],
        shows_effect=overall is not None and (overall.is_above_zero or overall.is_below_zero),
        by_group=tuple(f"{group}: {text}" for group, text in texts.items() if group is not None),
    )


def _with_floor(text: str, change: Interval, detectable: float | None) -> str:
    """Say of a change that shows no effect how large one would have had to be."""
    if change.is_above_zero or change.is_below_zero or not detectable:
        return text
    return f"{text}; an effect under {detectable:.2f} is inside the noise floor of this comparison"


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
