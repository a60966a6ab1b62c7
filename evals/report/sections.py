"""The report's parts: each evaluation with its pictures, and the training curves."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evals.report.both_orders import BothOrders, both_orders
from evals.report.caveats import evaluation_caveats
from evals.report.comparison import MAX_GROUPS_TOLD, Evaluation, Line
from evals.report.doses import dose_curves
from evals.report.figures import (
    Whisker,
    dose_figure,
    kind_colors,
    loss_figure,
    shared_range,
    shorten,
    whisker_figure,
)
from evals.report.heat_map import heat_map
from evals.report.inputs import LossCurve
from evals.report.pictures import CSS_VARIABLES, KINDS, MUTED, Picture
from evals.report.training import kind_of
from megatron_msm.formats.eval_result import EvalResult, Metric

ALL_ITEMS = "all items"
AXIS_LABEL_CHARS = 16


@dataclass(frozen=True)
class GroupPanel:
    """One group: its pictures, and its lines of the table."""

    name: str
    lines: tuple[Line, ...]
    level: Picture | None = None
    change: Picture | None = None
    contrasts: Picture | None = None
    num_changed: str = ""
    """Items that the changes are paired over."""
    num_contrasted: str = ""
    """Items that the contrasts are paired over."""


@dataclass(frozen=True)
class DosePanel:
    """Levels over one number of the arms' names."""

    what: str
    families: Mapping[str, str]
    """CSS variable of each family's line."""
    picture: Picture


@dataclass(frozen=True)
class Section:
    """One evaluation on the page."""

    evaluation: Evaluation
    first: EvalResult
    panels: list[GroupPanel]
    doses: list[DosePanel]
    both_orders: BothOrders | None
    """Sensitivity and bias by arm, where options are listed in both orders."""
    heat: Picture | None
    kinds: Mapping[str, str]
    """CSS variable of each kind of arm."""
    caveats: list[str]

    @property
    def pictures(self) -> dict[str, Picture]:
        """By file name, without its suffix."""
        found = {"groups": self.heat}
        for number, panel in enumerate(self.panels):
            found |= {
                f"level-{number}": panel.level,
                f"change-{number}": panel.change,
                f"contrasts-{number}": panel.contrasts,
            }
        found |= {f"dose-{number}": panel.picture for number, panel in enumerate(self.doses)}
        start = re.sub(r"[^\w.-]", "-", self.first.name)
        return {f"{start}-{name}": one for name, one in found.items() if one}


class DrawnCurve(NamedTuple):
    """A loss curve and the CSS variable of its line."""

    color: str
    curve: LossCurve


@dataclass(frozen=True)
class CurvePanel:
    """The losses of one training phase, in all runs."""

    phase: str
    drawn: tuple[DrawnCurve, ...]
    picture: Picture


def build_section(evaluation: Evaluation, *, number: int) -> Section:
    """Return an evaluation with its pictures; `number` tells its pictures from others'."""
    prefix = f"e{number}"
    kinds = [kind_of(results[0].model) for results in evaluation.arms.values()]
    colors = kind_colors(kinds)
    if kinds.count(kinds[0]) == 1:  # the reference is drawn muted
        colors[kinds[0]] = MUTED
    of_arms = dict(zip(evaluation.arms, (colors[kind] for kind in kinds), strict=True))
    return Section(
        evaluation=evaluation,
        first=evaluation.first,
        panels=_group_panels(evaluation, of_arms, prefix=prefix),
        doses=_dose_panels(evaluation, prefix=prefix),
        both_orders=both_orders(evaluation),
        heat=heat_map(evaluation, prefix=f"{prefix}heat") if len(evaluation.groups) > 2 else None,
        kinds={kind: CSS_VARIABLES[color] for kind, color in colors.items() if kind is not None},
        caveats=list(evaluation_caveats(evaluation)),
    )


def build_curves(curves: Sequence[LossCurve]) -> list[CurvePanel]:
    """Return a panel for each phase, with the curves of all runs."""
    phases: dict[str, list[LossCurve]] = defaultdict(list)
    for curve in curves:
        phases[curve.phase].append(curve)
    panels = []
    for number, (phase, of_phase) in enumerate(phases.items()):
        colors = [KINDS[n % len(KINDS)] for n in range(len(of_phase))]
        drawn = tuple(
            DrawnCurve(CSS_VARIABLES[color], curve)
            for color, curve in zip(colors, of_phase, strict=True)
        )
        picture = loss_figure(of_phase, colors, prefix=f"loss{number}")
        panels.append(CurvePanel(phase, drawn, picture))
    return panels


def _group_panels(
    evaluation: Evaluation, colors: Mapping[str, str], *, prefix: str
) -> list[GroupPanel]:
    """Return all items and then each group; all pictures of a kind share one scale."""
    metric = evaluation.first.headline_metric
    table = evaluation.groups
    drawn = [group for group in table if group is None or len(table) - 1 <= MAX_GROUPS_TOLD]
    lines = [line for group in drawn for line in table[group]]
    levels = shared_range([line.summary for line in lines])
    found = [line.change for line in lines if line.change is not None]
    found += [asked.groups[group] for asked in evaluation.contrasts for group in drawn]
    changes = shared_range([one.interval for one in found])
    panels = []
    for number, (group, rows) in enumerate(table.items()):
        name = ALL_ITEMS if group is None else group
        if group not in drawn:
            panels.append(GroupPanel(name, rows))
            continue
        of_arms = list(zip(rows, colors.values(), strict=True))
        level = whisker_figure(
            [Whisker(row.label, row.summary, row.change is None, of) for row, of in of_arms],
            x_label=_axis_label(metric.title, metric),
            x_range=levels,
            prefix=f"{prefix}level{number}",
            description=f"{metric.title} by model, {name}",
        )
        changed = [
            Whisker(row.label, row.change.interval, False, color)
            for row, color in of_arms
            if row.change is not None
        ]
        asked = [
            Whisker(one.name, one.groups[group].interval, False) for one in evaluation.contrasts
        ]
        change, contrasts = (
            _changes(
                whiskers,
                metric,
                changes,
                f"{prefix}{what}{number}",
                f"{what} of {metric.title}, {name}",
            )
            for what, whiskers in (("change", changed), ("contrasts", asked))
        )
        num_changed = _span([row.change.found.num_items for row in rows if row.change])
        of_contrasts = [one.groups[group].found.num_items for one in evaluation.contrasts]
        panels.append(
            GroupPanel(name, rows, level, change, contrasts, num_changed, _span(of_contrasts))
        )
    return panels


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low}" if low == high else f"{low} to {high}"


def _changes(
    whiskers: Sequence[Whisker],
    metric: Metric,
    x_range: tuple[float, float],
    prefix: str,
    description: str,
) -> Picture | None:
    if not whiskers:
        return None
    return whisker_figure(
        whiskers,
        x_label=_axis_label("change", metric),
        x_range=x_range,
        prefix=prefix,
        description=description,
    )


def _dose_panels(evaluation: Evaluation, *, prefix: str) -> list[DosePanel]:
    panels = []
    for number, curves in enumerate(dose_curves(evaluation)):
        colors = kind_colors(list(curves.families))
        of_families = {name: colors[name] for name in curves.families}
        picture = dose_figure(
            curves.families,
            list(of_families.values()),
            x_label=curves.what,
            y_label=evaluation.first.headline_metric.title,
            prefix=f"{prefix}dose{number}",
        )
        names = {name: CSS_VARIABLES[color] for name, color in of_families.items()}
        panels.append(DosePanel(curves.what, names, picture))
    return panels


def _axis_label(what: str, metric: Metric) -> str:
    lower, higher = (
        shorten(p, AXIS_LABEL_CHARS) for p in (metric.lower_means, metric.higher_means)
    )
    return f"← {lower} · {what} · {higher} →" if lower and higher else f"{what}, {metric.unit}"
