import math

import pytest

from evals.statistics.intervals import (
    Variance,
    mean_interval,
    rate_interval,
    rate_interval_of,
)
from megatron_msm.formats.eval_result import Interval


def wilson(chosen: float, n: int) -> tuple[float, float]:
    """Wilson 1927 as printed in textbooks, with z of 95%."""
    z = 1.959963984540054
    rate = chosen / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return centre - half, centre + half


@pytest.mark.parametrize(("chosen", "n"), [(0, 5), (5, 5), (8, 10), (50, 100), (1, 2)])
def test_rate_has_the_wilson_interval(chosen: int, n: int) -> None:
    interval = rate_interval(chosen, n)
    assert interval.estimate == chosen / n
    assert (interval.low, interval.high) == pytest.approx(wilson(chosen, n), abs=1e-12)


def test_wilson_of_8_in_10_is_the_published_one() -> None:
    interval = rate_interval(8, 10)
    assert interval.low == pytest.approx(0.4902, abs=1e-4)
    assert interval.high == pytest.approx(0.9433, abs=1e-4)


def test_a_tie_widens_the_rate_interval_to_both_outcomes() -> None:
    interval = rate_interval(2.5, 5)
    assert interval.estimate == 0.5
    assert interval.low == pytest.approx(wilson(2, 5)[0])
    assert interval.high == pytest.approx(wilson(3, 5)[1])


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        # t(0.975, 1) = 12.7062, s = sqrt(2), n = 2
        ([1.0, 3.0], 2.0, 12.7062),
        # t(0.975, 4) = 2.77645, s = sqrt(2.5), n = 5
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 2.77645 * math.sqrt(2.5 / 5)),
        ([0.5, 0.5, 0.5], 0.5, 0.0),
    ],
)
def test_mean_has_the_t_interval(values: list[float], mean: float, half_width: float) -> None:
    interval = mean_interval(values)
    assert interval.estimate == mean
    assert interval.low == pytest.approx(mean - half_width, abs=1e-4)
    assert interval.high == pytest.approx(mean + half_width, abs=1e-4)


def test_one_value_has_no_interval() -> None:
    assert mean_interval([0.7]) == Interval(estimate=0.7, low=None, high=None)


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.1, 0.2, True, False),
        (-0.2, -0.1, False, True),
        (-0.1, 0.1, False, False),
        (0.0, 0.1, False, False),
        (None, None, False, False),
    ],
)
def test_where_an_interval_lies(
    low: float | None, high: float | None, above: bool, below: bool
) -> None:
    interval = Interval(estimate=0.0, low=low, high=high)
    assert (interval.is_above_zero, interval.is_below_zero) == (above, below)


def test_a_rate_of_a_known_variance_stays_a_rate() -> None:
    # Binomial variance and many degrees of freedom: Wilson's own interval.
    plain = rate_interval_of(0.8, Variance(0.8 * 0.2 / 10, 1e9), num_independent=99)
    assert (plain.low, plain.high) == pytest.approx(wilson(8, 10), abs=1e-6)
    # Nothing varies: what the 12 clusters tell, and not the certainty of a variance of 0.
    sure = rate_interval_of(1.0, Variance(0.0, 1e9), num_independent=12)
    assert (sure.low, sure.high) == pytest.approx(wilson(12, 12), abs=1e-6)
    assert rate_interval_of(0.5, Variance(math.nan, 0), num_independent=1).low is None
    wide = rate_interval_of(0.9, Variance(0.04, 2), num_independent=12)
    assert wide.high is not None
    assert wide.high <= 1
