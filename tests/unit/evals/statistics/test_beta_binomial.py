"""Rates over clusters: beside another way to integrate, and by how often they cover."""

import numpy as np
import pytest
from scipy import stats

from evals.statistics.beta_binomial import beta_binomial_interval
from evals.statistics.intervals import rate_interval


def by_weighted_draws(chosen: list[int], sizes: list[int]) -> tuple[float, float]:
    """The 2.5% and 97.5% points of the posterior, from draws of the prior and their likelihood."""
    stream = np.random.default_rng(1)
    means, correlations = stream.random(100_000), stream.random(100_000)
    strength = 1 / correlations - 1
    log_weight = sum(
        stats.betabinom.logpmf(k, n, means * strength, (1 - means) * strength)
        for k, n in zip(chosen, sizes, strict=True)
    )
    order = np.argsort(means)
    held = np.cumsum(np.exp(log_weight - np.max(log_weight))[order])
    low, high = (means[order][np.searchsorted(held, q * held[-1])] for q in (0.025, 0.975))
    return float(low), float(high)


def test_the_interval_is_that_of_drawing_from_the_posterior() -> None:
    # Symmetric, so that the shortest range is the one between equal tails.
    chosen, sizes = [1, 2, 3, 2, 2, 1, 3], [4] * 7
    values = [float(n < k) for k in chosen for n in range(4)]
    clusters = [str(c) for c in range(7) for _ in range(4)]
    interval = beta_binomial_interval(values, clusters)
    assert interval.estimate == 0.5
    assert (interval.low, interval.high) == pytest.approx(
        by_weighted_draws(chosen, sizes), abs=0.01
    )


def test_a_rate_over_clusters_that_never_vary_is_not_known_without_error() -> None:
    values, clusters = [0.0] * 270, [str(n % 27) for n in range(270)]
    interval = beta_binomial_interval(values, clusters)
    assert interval.low == 0.0
    # Between Wilson's upper ends for 270 independent replies and for 27.
    most, least = rate_interval(0, 270).high, rate_interval(0, 27).high
    assert most is not None
    assert least is not None
    assert interval.high is not None
    assert most < interval.high < least
    assert beta_binomial_interval([1.0] * 4, ["a", "a", "b", "b"]).high == 1.0


@pytest.mark.parametrize(
    ("num_clusters", "rows", "mean", "strength"), [(12, 10, 0.2, 3.0), (27, 3, 0.1, 1.0)]
)
def test_a_rate_over_clusters_is_covered_as_often_as_it_says(
    num_clusters: int, rows: int, mean: float, strength: float
) -> None:
    """Simulated: conditions whose rates are drawn from a Beta."""
    stream = np.random.default_rng(0)
    clusters = [str(n // rows) for n in range(num_clusters * rows)]
    covered = plain = 0
    for _ in range(150):
        rates = stream.beta(mean * strength, (1 - mean) * strength, num_clusters)
        values = (stream.random(len(clusters)) < np.repeat(rates, rows)).astype(float).tolist()
        interval = beta_binomial_interval(values, clusters)
        assert interval.low is not None
        assert interval.high is not None
        assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
        covered += interval.low <= mean <= interval.high
        wilson = rate_interval(sum(values), len(values))
        assert wilson.low is not None
        assert wilson.high is not None
        plain += wilson.low <= mean <= wilson.high
    assert covered / 150 >= 0.92
    assert plain / 150 < 0.88  # what taking replies as independent would have given
