"""Dose curves: arms that differ in one number of their name, as `[steps=12]` and `[steps=50]`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evals.report.comparison import Evaluation
from evals.report.figures import DosePoint

_DOSE = re.compile(r"\[([^\[\]=]+)=([0-9.]+(?:[eE][+-]?[0-9]+)?)\]")
MIN_POINTS = 2


@dataclass(frozen=True)
class DoseCurves:
    """One evaluation's levels over one number, a curve for each family of arms."""

    what: str
    """Name of the number."""
    families: dict[str, tuple[DosePoint, ...]]


def dose_curves(evaluation: Evaluation) -> list[DoseCurves]:
    """Return the curves of every number in which some arms differ, and nothing else."""
    found: dict[str, dict[str, dict[float, DosePoint]]] = {}
    for arm, line in zip(evaluation.arms, evaluation.groups[None], strict=True):
        for what, family, dose in _doses(arm):
            point = DosePoint(dose, line.summary)
            found.setdefault(what, {}).setdefault(family, {})[dose] = point
    return [
        DoseCurves(what, kept)
        for what, families in found.items()
        if (
            kept := {
                family: _in_order(list(points.values()))
                for family, points in families.items()
                if len(points) >= MIN_POINTS
            }
        )
    ]


def _in_order(points: Sequence[DosePoint]) -> tuple[DosePoint, ...]:
    return tuple(sorted(points, key=lambda point: point.dose))


def _doses(arm: str) -> Iterator[tuple[str, str, float]]:
    """Yield (number's name, the arm's name without it, its value)."""
    for match in _DOSE.finditer(arm):
        yield match[1], arm[: match.start()] + arm[match.end() :], float(match[2])
