"""Rows into metrics: one statistic over all rows and over each group."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from evals.statistics.beta_binomial import beta_binomial_interval
from evals.statistics.intervals import mean_interval, rate_interval
from megatron_msm.formats.eval_result import Metric, Row, Summary

Statistic = Callable[[Sequence[float]], Summary]

SEED_NOTE = (
    "1 model, one seed: the intervals cover the spread over items, not that of another training run"
)


def mean_summary(values: Sequence[float]) -> Summary:
    """Return a mean with its t interval."""
    return Summary(**mean_interval(values).model_dump(), n=len(values))


def rate_summary(values: Sequence[float]) -> Summary:
    """Return a rate with its Wilson interval; values are 0, 1, and 0.5 for a tie."""
    return Summary(**rate_interval(sum(values), len(values)).model_dump(), n=len(values))


def metric_of(
    rows: Sequence[Row],
    name: str,
    statistic: Statistic,
    *,
    title: str,
    unit: str,
    better: Literal["higher", "lower"] | None = None,
    higher_means: str = "",
    lower_means: str = "",
    cluster_is: str = "cluster",
) -> Metric:
    """Return the metric `name` of the rows, over all of them and by group.

    Args:
        rows: At least one; those whose number is None are counted as unscored.
        name: Key of the rows' numbers.
        statistic: What is computed of the numbers.
        title: Its name in tables.
        unit: Its unit.
        better: Which way is better.
        higher_means: What a larger number speaks for.
        lower_means: What a smaller one speaks for.
        cluster_is: What rows of one cluster share, such as a condition; where rows share one, the
            interval takes clusters as independent and not rows.
    """
    groups = dict.fromkeys(row.group for row in rows)
    are_independent = len({row.cluster for row in rows}) == len(rows)
    return Metric(
        name=name,
        title=title,
        unit=unit,
        better=better,
        higher_means=higher_means,
        lower_means=lower_means,
        clustered_by="item" if are_independent else cluster_is,
        overall=_summary(rows, name, statistic),
        groups={
            group: _summary([row for row in rows if row.group == group], name, statistic)
            for group in groups
        },
    )


def _summary(rows: Sequence[Row], name: str, statistic: Statistic) -> Summary:
    scored = [(number, row.cluster) for row in rows if (number := row.numbers[name]) is not None]
    values, clusters = [number for number, _ in scored], [cluster for _, cluster in scored]
    return _statistic_of(values, clusters, statistic).model_copy(
        update={"num_unscored": len(rows) - len(scored)}
    )


def _statistic_of(
    values: Sequence[float], clusters: Sequence[str], statistic: Statistic
) -> Summary:
    if not values:
        return Summary(estimate=math.nan, low=None, high=None, n=0)
    # Within one cluster, repetitions are all there is, and independent of each other.
    if 1 < len(set(clusters)) < len(values):
        is_rate = statistic is rate_summary and {0.0, 1.0}.issuperset(values)
        clustered = beta_binomial_interval if is_rate else mean_interval
        return Summary(**clustered(values, clusters).model_dump(), n=len(values))
    return statistic(values)
