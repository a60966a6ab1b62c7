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


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean with its t interval: `mean ± t(0.975, n - 1) * s / sqrt(n)`."""
    num_values = len(values)
    mean = math.fsum(values) / num_values
    if num_values < 2:
        return Interval(estimate=mean, low=None, high=None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (num_values - 1)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, num_values - 1))
    half_width = quantile * math.sqrt(variance / num_values)
    return Interval(estimate=mean, low=mean - half_width, high=mean + half_width)


class _Bounds(NamedTuple):
    low: float
    high: float


def _wilson(num_chosen: int, num_items: int) -> _Bounds:
    test = stats.binomtest(num_chosen, num_items)
    return _Bounds(*map(float, test.proportion_ci(CONFIDENCE, method="wilson")))
