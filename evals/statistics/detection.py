"""Sensitivity and response bias apart, for items that are asked from both sides.

A side is a way of asking in which "yes" (or "the first") is right, or wrong. A model that says yes
to everything is right half the time: rates of one side alone would not show it.

Sources: Green and Swets 1966; Macmillan and Creelman 2005, chapters 2 and 7 (two alternatives: the
difference is divided by the root of 2); Hautus 1995 for rates of 0 and 1; intervals by the
jackknife over clusters of items, since both sides are of the same items.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from evals.statistics.intervals import CONFIDENCE
from megatron_msm.formats.eval_result import Interval


@dataclass(frozen=True)
class Detection:
    """What a model tells apart, and what it leans to."""

    sensitivity: Interval
    """d': 0 where both sides are answered alike; negative where they are turned round."""
    criterion: Interval
    """c: negative where the model leans to "yes" (or the first), positive to "no"."""


def two_alternatives(
    first_when_right: Sequence[float], first_when_wrong: Sequence[float], clusters: Sequence[str]
) -> Detection:
    """Return sensitivity and bias of choices between two that are listed in both orders.

    Args:
        first_when_right: Share in which the first was chosen where it was the target, an item each.
        first_when_wrong: The same where the other was listed first.
        clusters: Which items are not independent.
    """
    by_cluster: dict[str, np.ndarray] = {}
    for right, wrong, cluster in zip(first_when_right, first_when_wrong, clusters, strict=True):
        by_cluster[cluster] = by_cluster.get(cluster, 0) + np.array([right, wrong, 1.0])
    sums = np.stack(list(by_cluster.values()))
    total = sums.sum(axis=0)
    whole, left = _estimates(total[None])[0], _estimates(total - sums)
    return Detection(_jackknife(whole[0], left[:, 0]), _jackknife(whole[1], left[:, 1]))


def _estimates(sums: np.ndarray) -> np.ndarray:
    """Return d' and c of each row of `[n, 3]`: chosen on one side, on the other, items."""
    # Half an answer is added to each side, so that rates of 0 and 1 have a place (Hautus 1995).
    z = special.ndtri((sums[:, :2] + 0.5) / (sums[:, 2:] + 1))
    return np.stack([(z[:, 0] - z[:, 1]) / math.sqrt(2), -(z[:, 0] + z[:, 1]) / 2], axis=1)


def _jackknife(estimate: float, left_out: np.ndarray) -> Interval:
    num = len(left_out)
    if num < 2:
        return Interval(estimate=float(estimate), low=None, high=None)
    error = math.sqrt((num - 1) / num * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, num - 1)) * error
    return Interval(estimate=float(estimate), low=estimate - half, high=estimate + half)
