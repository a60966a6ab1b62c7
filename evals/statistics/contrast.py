"""Contrasts between arms: a weighted sum of their means, with items and training seeds as units.

A plain change is `after - before`; the difference in differences of two treatments is
`both - one - other + neither`. What makes the estimate vary is added up:

    items   another set of items: variance of the contrast's value by item, which are paired over
            arms, and summed within clusters
    seeds   another training run: for each arm with several seeds, the variance of their means

Results of one arm with the same weights are repeats of one checkpoint and not training runs: they
are averaged, and how far they differ is the noise floor.

Seeds are taken as independent between arms: the same number does not make two runs alike. Each part
holds a share of the other's residual, so the interval is a little too wide rather than too narrow.
An arm of one seed adds nothing: its interval is that over items alone, and the report says so.

Source: Miller, arXiv 2411.00640, sections 2 and 4 (clusters, pairs); Satterthwaite 1946 for the
degrees of freedom of a sum of variances.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict
from scipy import stats

from evals.statistics.intervals import (
    CONFIDENCE,
    Variance,
    cluster_variance,
    seed_variance,
    t_interval,
    total_variance,
)
from evals.statistics.power import detectable_effect
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import EvalResult, Interval


class Contrast(BaseModel):
    """A contrast's estimate and what its interval covers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    interval: Interval
    num_items: int
    """Items that every result has scored."""
    num_left_out: int
    """Items that some result could not score."""
    sd_items: float | None
    """Standard deviation of the contrast over items; None with one item."""
    num_seeds: dict[str, int]
    """Training runs of each arm."""
    num_repeats: int
    """Results beyond the first of one checkpoint."""
    detectable: float | None
    """Smallest true effect that is found in 4 of 5 studies of this precision."""
    p_value: float | None
    """Two-sided, of no effect; None with one item."""
    variance: float
    """Variance of the estimate; NaN with one item."""
    dof: float
    num_clusters: int
    noise_floor: float | None
    """Size that repeats of the same checkpoints alone stay under in 95% of cases; None where no
    checkpoint was asked twice."""


def contrast(
    arms: Mapping[str, Sequence[EvalResult]],
    weights: Mapping[str, float],
    *,
    metric: str | None = None,
    group: str | None = None,
) -> Contrast:
    """Return the weighted sum of the arms' means, paired by item.

    Args:
        arms: Results of each arm, one a training seed; all were measured alike.
        weights: By arm.
        metric: Its name; the headline without it.
        group: Only the items of this group; all without it.

    Raises:
        DataFormatError: No item was scored by all results.
    """
    runs = {
        arm: [
            [_numbers(result, metric, group) for result in run] for run in training_runs(arms[arm])
        ]
        for arm in weights
    }
    all_tables = [table for of_arm in runs.values() for run in of_arm for table in run]
    first = arms[next(iter(weights))][0]
    clusters = {row.id: row.cluster for row in first.rows}
    asked = [row.id for row in first.rows if group in (None, row.group)]
    items = [item for item in asked if all(item in table for table in all_tables)]
    if not items:
        where = "" if group is None else f" in {group!r}"
        raise DataFormatError(
            f"the evaluation {first.name!r} has no item{where} that every result could score, so "
            f"nothing can be said of {', '.join(weights)}. See the results' unscored rows."
        )
    tables = {arm: [_mean_table(run, items) for run in of_arm] for arm, of_arm in runs.items()}
    by_item = [
        math.fsum(w * _mean([t[item] for t in tables[arm]]) for arm, w in weights.items())
        for item in items
    ]
    of_items = [clusters[item] for item in items]
    if len(set(of_items)) == 1:  # within one (a condition alone), repetitions are all there is
        of_items = items
    parts = [cluster_variance(by_item, of_items)]
    for arm, weight in weights.items():
        means = [_mean(list(table.values())) for table in tables[arm]]
        if len(means) > 1:
            parts.append(seed_variance(means, weight))
    total, estimate = total_variance(parts), _mean(by_item)
    return Contrast(
        interval=t_interval(estimate, total),
        num_items=len(items),
        num_left_out=len(asked) - len(items),
        sd_items=statistics.stdev(by_item) if len(by_item) > 1 else None,
        num_seeds={arm: len(of_arm) for arm, of_arm in runs.items()},
        num_repeats=len(all_tables) - sum(map(len, runs.values())),
        detectable=None if total.dof < 1 else detectable_effect(total),
        p_value=_p_value(estimate, total, len(set(of_items))),
        variance=total.value,
        dof=total.dof,
        num_clusters=len(set(of_items)),
        noise_floor=_noise_floor(runs, weights, items),
    )


Table = Mapping[str, float]
"""A result's number by item."""


def training_runs(results: Sequence[EvalResult]) -> list[list[EvalResult]]:
    """Return an arm's results by checkpoint: those of the same weights are repeats of one.

    Weights that are unknown, since only a server has them, are taken as another run each.
    """
    runs: dict[str, list[EvalResult]] = {}
    for number, result in enumerate(results):
        runs.setdefault(result.model.weights_sha256 or f"unknown {number}", []).append(result)
    return list(runs.values())


def _noise_floor(
    runs: Mapping[str, Sequence[Sequence[Table]]],
    weights: Mapping[str, float],
    items: Sequence[str],
) -> float | None:
    """Return `t(0.975, dof) * sd of the contrast` when only the asking is repeated.

    The variance of one asking is pooled over all checkpoints that were asked several times.
    """
    squares, dof, scale = 0.0, 0, 0.0
    for arm, weight in weights.items():
        for run in runs[arm]:
            means = [_mean([table[item] for item in items]) for table in run]
            scale += weight**2 / len(runs[arm]) ** 2 / len(run)
            if len(means) > 1:
                squares += statistics.variance(means) * (len(means) - 1)
                dof += len(means) - 1
    if not dof:
        return None
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, dof)) * math.sqrt(squares / dof * scale)


def _mean_table(run: Sequence[Table], items: Sequence[str]) -> Table:
    return {item: _mean([table[item] for table in run]) for item in items}


def _numbers(result: EvalResult, metric: str | None, group: str | None) -> dict[str, float]:
    name = metric or result.headline
    return {
        row.id: number
        for row in result.rows
        if group in (None, row.group) and (number := row.numbers[name]) is not None
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _p_value(estimate: float, total: Variance, num_clusters: int) -> float | None:
    if total.dof < 1:
        return None
    if math.sqrt(total.value) > 1e-9 * abs(estimate):
        return 2 * float(stats.t.sf(abs(estimate) / math.sqrt(total.value), total.dof))
    # Nothing varies, which few items may do by chance: the sign test, which does not take a
    # variance of zero for certainty.
    return min(1.0, 2 * 0.5**num_clusters) if estimate else 1.0
