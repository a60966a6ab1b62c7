"""Intervals at 95%: Wilson for a rate, Student's t for a mean over items.

They speak of the spread over items, of one model. How much another training seed would move the
result is not in them, and wherever they are shown that is said.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats

from megatron_msm.formats.eval_result import Interval

CONFIDENCE = 0.95


def rate_interval(num_chosen: float, num_items: int) -> Interval:
    """Return a rate with its Wilson interval.

    Args:
        num_chosen: Items chosen; a tie counts as one half.
        num_items: Items in all.

    Source: Wilson 1927, by `scipy.stats.binomtest`. It takes whole counts, so with a half the
    interval runs from the lower end with it lost to the upper end with it won.
    """
    return Interval(
        estimate=num_chosen / num_items,
        low=_wilson(math.floor(num_chosen), num_items).low,
        high=_wilson(math.ceil(num_chosen), num_items).high,
    )


def mean_interval(values: Sequence[float], clusters: Sequence[str] | None = None) -> Interval:
    """Return the mean with its t interval: `mean ± t(0.975, dof) * sqrt(variance)`.

    Args:
        values: One a row.
        clusters: The cluster of each row; every row its own without it.
    """
    mean = math.fsum(values) / len(values)
    return t_interval(mean, cluster_variance(values, clusters or _apart(values)))


def rate_interval_of(rate: float, of_rate: "Variance", *, num_independent: int) -> Interval:
    """Return a rate with Wilson's interval for as many independent answers as it is worth.

    `n = p (1 - p) / variance` answers, with t in place of z: so that it stays between 0 and 1.

    Args:
        rate: The rate.
        of_rate: Its variance over all that it is over: items, training seeds.
        num_independent: What it is worth where nothing varies: items, or clusters of them.

    Source: Korn and Graubard 1998 (effective sample size), in Wilson's formula.
    """
    if of_rate.dof < 1:
        return Interval(estimate=rate, low=None, high=None)
    varies = 0 < rate < 1 and of_rate.value > 0
    worth = rate * (1 - rate) / of_rate.value if varies else num_independent
    square = float(stats.t.ppf((1 + CONFIDENCE) / 2, of_rate.dof)) ** 2
    centre = (rate + square / (2 * worth)) / (1 + square / worth)
    spread = math.sqrt(square * (rate * (1 - rate) / worth + square / (4 * worth**2)))
    half = spread / (1 + square / worth)
    return Interval(
        estimate=rate,
        low=min(rate, max(0.0, centre - half)),
        high=max(rate, min(1.0, centre + half)),
    )


class Variance(NamedTuple):
    """The variance of an estimate, and how well it is known."""

    value: float
    dof: float


def cluster_variance(values: Sequence[float], clusters: Sequence[str]) -> Variance:
    """Return the variance of the mean of values that are alike within clusters.

    `G / (G - 1) * sum over clusters of (sum of deviations)^2 / n^2`; with every value its own
    cluster that is `s^2 / n`. Degrees of freedom: G - 1. Source: Cameron and Miller 2015, part 2.
    """
    mean = math.fsum(values) / len(values)
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    num_clusters = len(sums)
    if num_clusters < 2:
        return Variance(math.nan, 0)
    squares = math.fsum(total**2 for total in sums.values())
    scale = num_clusters / (num_clusters - 1) / len(values) ** 2
    return Variance(scale * squares, num_clusters - 1)


def seed_variance(of_runs: Sequence[float], weight: float) -> Variance:
    """Return what an arm's training runs add to a contrast in which it has this weight."""
    of_mean = cluster_variance(of_runs, _apart(of_runs))
    return of_mean._replace(value=of_mean.value * weight**2)


def total_variance(parts: Sequence[Variance]) -> Variance:
    """Add variances; their degrees of freedom by Satterthwaite (1946)."""
    if any(part.dof < 1 for part in parts):
        return Variance(math.nan, 0)
    value = math.fsum(part.value for part in parts)
    spread = math.fsum(part.value**2 / part.dof for part in parts)
    return Variance(value, value**2 / spread if spread else parts[0].dof)


def t_interval(estimate: float, variance: Variance) -> Interval:
    """Return an estimate with its t interval; without bounds where the variance is unknown."""
    if variance.dof < 1:
        return Interval(estimate=estimate, low=None, high=None)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, variance.dof)) * math.sqrt(variance.value)
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half)


def _apart(values: Sequence[float]) -> list[str]:
    """Return a cluster for each value."""
    return [str(number) for number in range(len(values))]


class _Bounds(NamedTuple):
    low: float
    high: float


def _wilson(num_chosen: int, num_items: int) -> _Bounds:
    test = stats.binomtest(num_chosen, num_items)
    return _Bounds(*map(float, test.proportion_ci(CONFIDENCE, method="wilson")))
