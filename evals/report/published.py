"""One's own arms beside a published figure: order and differences first, levels last.

`--reference EVALUATION=FIGURE:PUBLISHED=OWN,...` names which own arm stands for which published
one; equal names need no mention. FIGURE may end in `*`. Own numbers are of arms, of groups (of the
first arm), or of contrasts, as the figure's are. Levels depend on models, judges and items; whether
the same arms lie in the same order is what a replication can show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from evals.reference.figures import PublishedFigure, named_figures
from evals.report.comparison import Evaluation
from evals.statistics.contrast import contrast
from megatron_msm.errors import ConfigError
from megatron_msm.formats.eval_result import Interval

FORM = "EVALUATION=FIGURE or EVALUATION=FIGURE:PUBLISHED=OWN,..."


@dataclass(frozen=True)
class Side:
    """One published arm and one's own for it."""

    published: str
    own: str | None
    published_level: float
    published_change: float | None
    """From the figure's first arm; None for that arm."""
    level: Interval | None
    change: Interval | None
    """From one's own that stands for the figure's first; paired by item where it is of arms."""


@dataclass(frozen=True)
class BesidePublished:
    """An evaluation beside a figure."""

    evaluation: str
    figure: PublishedFigure
    sides: tuple[Side, ...]
    num_pairs: int
    """Pairs of arms that both have, and that differ in the figure."""
    num_alike: int
    """How many of these lie in the same order."""


def lay_beside(evaluations: Sequence[Evaluation], asked: str) -> list[BesidePublished]:
    """Return what `asked` names: one for each figure.

    Raises:
        ConfigError: It has another form, or names no evaluation, figure or arm.
    """
    where = f"--reference {asked}"
    name, separator, rest = asked.partition("=")
    figure_id, _, pairs = rest.partition(":")
    found = [one for one in evaluations if one.first.name == name]
    if not separator or not found:
        known = ", ".join(one.first.name for one in evaluations)
        raise ConfigError(f"{where}: not {FORM}. The evaluations are {known}.")
    return [
        _beside(found[0], figure, pairs, where) for figure in named_figures(figure_id, where=where)
    ]


def _beside(
    evaluation: Evaluation, figure: PublishedFigure, pairs: str, where: str
) -> BesidePublished:
    numbers = _own_numbers(evaluation, figure, where)
    own = {label: label for label in figure.arms if label in numbers}
    own |= _named(pairs, figure, numbers, where)
    if not own:
        raise ConfigError(
            f"{where}: no own {figure.of} stand for {', '.join(figure.arms)}. "
            f"Write {FORM}; yours are {', '.join(numbers) or 'none'}."
        )
    first = next(iter(figure.arms))
    sides = [
        Side(
            published=label,
            own=own.get(label),
            published_level=value,
            published_change=None if label == first else value - figure.arms[first],
            level=numbers[own[label]] if label in own else None,
            change=_change(evaluation, figure, numbers, own[label], own[first])
            if label in own and first in own and label != first
            else None,
        )
        for label, value in figure.arms.items()
    ]
    compared = [
        (
            figure.arms[a] - figure.arms[b],
            _sign(evaluation, figure) * _difference(numbers, own, a, b),
        )
        for a, b in combinations(own, 2)
        if figure.arms[a] != figure.arms[b]
    ]
    return BesidePublished(
        evaluation=evaluation.first.name,
        figure=figure,
        sides=tuple(sides),
        num_pairs=len(compared),
        num_alike=sum(theirs * ours > 0 for theirs, ours in compared),
    )


def _own_numbers(
    evaluation: Evaluation, figure: PublishedFigure, where: str
) -> dict[str, Interval]:
    """Return one's own of what the figure is of, by name."""
    metric = figure.metric or evaluation.first.headline
    if metric not in [one.name for one in evaluation.first.metrics]:
        raise ConfigError(
            f"{where}: {figure.id} is of {metric!r}, and {evaluation.first.name!r} has "
            f"{', '.join(one.name for one in evaluation.first.metrics)}."
        )
    if figure.of == "contrasts":
        return {asked.name: asked.overall.interval for asked in evaluation.contrasts}
    if figure.of == "groups":
        lines = {group: lines[0] for group, lines in evaluation.groups.items() if group is not None}
    else:
        lines = dict(zip(evaluation.arms, evaluation.groups[None], strict=True))
    return {
        name: line.of(metric, headline=evaluation.first.headline) for name, line in lines.items()
    }


def _named(
    pairs: str, figure: PublishedFigure, numbers: Mapping[str, Interval], where: str
) -> dict[str, str]:
    named = {}
    for pair in filter(None, pairs.split(",")):
        published, _, own = pair.partition("=")
        if published not in figure.arms or own not in numbers:
            raise ConfigError(
                f"{where}: {pair!r} is not PUBLISHED=OWN. Published are {', '.join(figure.arms)}; "
                f"your {figure.of} are {', '.join(numbers)}."
            )
        named[published] = own
    return named


def _change(
    evaluation: Evaluation,
    figure: PublishedFigure,
    numbers: Mapping[str, Interval],
    own: str,
    first: str,
) -> Interval:
    if figure.of == "arms" and own != first:
        weights = {own: 1.0, first: -1.0}
        return contrast(evaluation.arms, weights, metric=figure.metric).interval
    difference = numbers[own].estimate - numbers[first].estimate
    return Interval(estimate=difference, low=None, high=None)


def _difference(numbers: Mapping[str, Interval], own: Mapping[str, str], a: str, b: str) -> float:
    return numbers[own[a]].estimate - numbers[own[b]].estimate


def _sign(evaluation: Evaluation, figure: PublishedFigure) -> float:
    """Return -1 where the figure and one's own point opposite ways."""
    better = evaluation.first.metric(figure.metric or evaluation.first.headline).better
    return -1.0 if better and figure.better and better != figure.better else 1.0
