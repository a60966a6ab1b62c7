"""One's own arms beside a published figure: order and differences first, levels last.

`--reference EVALUATION=FIGURE:PUBLISHED=OWN,...` names which own arm stands for which published
one; arms of equal names need no mention. Levels depend on models, judges and items; whether the
same arms lie in the same order is what a replication can show.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from evals.reference.figures import PublishedFigure, published_figure
from evals.report.comparison import Evaluation
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
    change: float | None
    """From one's own arm that stands for the figure's first."""


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


def lay_beside(evaluations: Sequence[Evaluation], asked: str) -> BesidePublished:
    """Return what `asked` names.

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
    figure = published_figure(figure_id, where=where)
    own = {label: label for label in figure.arms if label in found[0].arms}
    own |= _named(pairs, figure, found[0], where)
    if not own:
        raise ConfigError(
            f"{where}: no own arm stands for one of {', '.join(figure.arms)}. "
            f"Write {FORM}; your arms are {', '.join(found[0].arms)}."
        )
    return _beside(found[0], figure, own)


def _named(
    pairs: str, figure: PublishedFigure, evaluation: Evaluation, where: str
) -> dict[str, str]:
    named = {}
    for pair in filter(None, pairs.split(",")):
        published, _, own = pair.partition("=")
        if published not in figure.arms or own not in evaluation.arms:
            raise ConfigError(
                f"{where}: {pair!r} is not PUBLISHED=OWN. Published are {', '.join(figure.arms)}; "
                f"your arms are {', '.join(evaluation.arms)}."
            )
        named[published] = own
    return named


def _beside(
    evaluation: Evaluation, figure: PublishedFigure, own: dict[str, str]
) -> BesidePublished:
    lines = dict(zip(evaluation.arms, evaluation.groups[None], strict=True))
    levels = {published: lines[arm].summary for published, arm in own.items()}
    first = next(iter(figure.arms))
    sides = [
        Side(
            published=arm,
            own=own.get(arm),
            published_level=value,
            published_change=None if arm == first else value - figure.arms[first],
            level=levels.get(arm),
            change=levels[arm].estimate - levels[first].estimate
            if arm in levels and first in levels and arm != first
            else None,
        )
        for arm, value in figure.arms.items()
    ]
    better = evaluation.first.headline_metric.better
    sign = -1.0 if better and figure.better and better != figure.better else 1.0
    pairs = [
        (figure.arms[a] - figure.arms[b], sign * (levels[a].estimate - levels[b].estimate))
        for a, b in combinations(levels, 2)
        if figure.arms[a] != figure.arms[b]
    ]
    return BesidePublished(
        evaluation=evaluation.first.name,
        figure=figure,
        sides=tuple(sides),
        num_pairs=len(pairs),
        num_alike=sum(theirs * ours > 0 for theirs, ours in pairs),
    )
