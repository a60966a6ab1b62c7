"""Sensitivity and response bias apart, for items that are asked from both sides.

A side is a way of asking in which "yes" (or "the first") is right, or wrong. A model that says yes
to everything is right half the time: rates of one side alone would not show it.

Both are computed of each training run, and an arm's is the mean over its runs, which are the unit
as in `contrast`. What makes a contrast vary is added up in the same way: another set of items (the
jackknife over clusters of items, which all runs share), and another training run.

Sources: Green and Swets 1966; Macmillan and Creelman 2005, chapters 2 and 7 (two alternatives: the
difference is divided by the root of 2); Hautus 1995 for rates of 0 and 1; Efron and Stein 1981 for
the jackknife.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from evals.statistics.intervals import Variance, seed_variance, t_interval, total_variance
from megatron_msm.formats.eval_result import Interval


class Sides(NamedTuple):
    """How often a training run chose the first, an item each: 0, 1, or between for repeats."""

    when_right: Sequence[float]
    """Where the target was listed first."""
    when_wrong: Sequence[float]
    """Where the other was."""


@dataclass(frozen=True)
class Detection:
    """What arms tell apart, and what they lean to: of one arm, or a weighted sum."""

    sensitivity: Interval
    """d': 0 where both sides are answered alike; negative where they are turned round."""
    criterion: Interval
    """c: negative where the model leans to "yes" (or the first), positive to "no"."""
    num_seeds: dict[str, int]
    """Training runs of each arm."""
    num_items: int


def detection_contrast(
    runs: Mapping[str, Sequence[Sides]], weights: Mapping[str, float], clusters: Sequence[str]
) -> Detection:
    """Return the weighted sum of the arms' sensitivities, and of their criteria.

    Args:
        runs: Training runs of each arm; all over the same items in the same order.
        weights: By arm; `{arm: 1.0}` is the arm's own level.
        clusters: Of each item: which are not independent.
    """
    tables = {arm: [_by_cluster(run, clusters) for run in runs[arm]] for arm in weights}
    of_runs = {
        arm: np.concatenate([_estimates(table.sum(axis=0, keepdims=True)) for table in of_arm])
        for arm, of_arm in tables.items()
    }
    left_out = sum(
        weight * np.mean([_estimates(table.sum(axis=0) - table) for table in tables[arm]], axis=0)
        for arm, weight in weights.items()
    )

    def interval(column: int) -> Interval:
        values = {arm: table[:, column].tolist() for arm, table in of_runs.items()}
        estimate = math.fsum(w * math.fsum(values[a]) / len(values[a]) for a, w in weights.items())
        parts = [_jackknife(np.asarray(left_out)[:, column])]
        parts += [seed_variance(values[a], w) for a, w in weights.items() if len(values[a]) > 1]
        return t_interval(estimate, total_variance(parts))

    num_seeds = {arm: len(runs[arm]) for arm in weights}
    return Detection(interval(0), interval(1), num_seeds, len(clusters))


def _by_cluster(run: Sides, clusters: Sequence[str]) -> np.ndarray:
    """Return `[clusters, 3]`: first chosen where right, where wrong, items."""
    sums: dict[str, np.ndarray] = {}
    for right, wrong, cluster in zip(run.when_right, run.when_wrong, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0) + np.array([right, wrong, 1.0])
    return np.stack(list(sums.values()))


def _estimates(sums: np.ndarray) -> np.ndarray:
    """Return d' and c of each row of `[n, 3]`: chosen on one side, on the other, items."""
    # Half an answer is added to each side, so that rates of 0 and 1 have a place (Hautus 1995).
    z = special.ndtri((sums[:, :2] + 0.5) / (sums[:, 2:] + 1))
    return np.stack([(z[:, 0] - z[:, 1]) / math.sqrt(2), -(z[:, 0] + z[:, 1]) / 2], axis=1)


def _jackknife(left_out: np.ndarray) -> Variance:
    """Return the variance over clusters, of the estimates without each."""
    num = len(left_out)
    squares = float(((left_out - left_out.mean()) ** 2).sum())
    return Variance((num - 1) / num * squares, num - 1)
