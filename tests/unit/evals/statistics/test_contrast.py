"""Contrasts beside the package errorbars, beside counts by hand, and by how often they cover."""

import random

import numpy as np
import pytest
from errorbars.compare import paired_compare
from errorbars.stats import cluster_robust_se

from evals.statistics.contrast import contrast
from evals.statistics.intervals import mean_interval
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import EvalResult
from tests.unit.evals.tasks.choice.results import result


def in_clusters(one: EvalResult, clusters: list[str]) -> EvalResult:
    rows = [
        row.model_copy(update={"cluster": cluster})
        for row, cluster in zip(one.rows, clusters, strict=True)
    ]
    return one.model_copy(update={"rows": tuple(rows)})


@pytest.mark.parametrize("seed", range(3))
def test_paired_and_clustered_intervals_are_those_of_errorbars(seed: int) -> None:
    chance = random.Random(seed)
    clusters = [chance.choice("abcdef") for _ in range(60)]
    before = [chance.gauss(0, 1) for _ in clusters]
    after = [value + chance.gauss(0.3, 0.5) for value in before]
    theirs = paired_compare(after, before, clusters)

    arms = {"before": [result("before", before)], "after": [result("after", after)]}
    weights = {"after": 1.0, "before": -1.0}
    plain = contrast(arms, weights).interval
    assert (plain.estimate, plain.low, plain.high) == pytest.approx(
        (theirs.mean_diff, theirs.ci_low, theirs.ci_high), abs=1e-9
    )
    clustered = {name: [in_clusters(each, clusters) for each in of] for name, of in arms.items()}
    ours = contrast(clustered, weights).interval
    assert (ours.low, ours.high) == pytest.approx(
        (theirs.ci_low_clustered, theirs.ci_high_clustered), abs=1e-6
    )
    alone = mean_interval(after, clusters)
    error = cluster_robust_se(after, clusters)
    assert alone.high is not None
    assert (alone.high - alone.estimate) / error == pytest.approx(2.5705818, abs=1e-6)  # t, 5 dof


def test_difference_in_differences_by_hand() -> None:
    levels = {"both": [3.0, 5.0], "one": [1.0, 2.0], "other": [1.0, 1.0], "neither": [0.0, 0.0]}
    arms = {name: [result(name, values)] for name, values in levels.items()}
    weights = {"both": 1.0, "one": -1.0, "other": -1.0, "neither": 1.0}
    # By item 3 - 1 - 1 + 0 = 1 and 5 - 2 - 1 + 0 = 2: s = 0.7071, n = 2, t(0.975, 1) = 12.7062.
    interval = contrast(arms, weights).interval
    assert interval.estimate == pytest.approx(1.5)
    assert interval.high == pytest.approx(1.5 + 12.7062 * 0.5, abs=1e-3)


def test_seeds_by_hand() -> None:
    """Equal items: only the seeds vary, and the interval is Student's over their means."""
    arms = {
        "base": [result("base", [0.0, 0.0, 0.0])],
        "trained": [result(f"trained{n}", [n, n, n]) for n in (1.0, 2.0, 3.0)],
    }
    found = contrast(arms, {"trained": 1.0, "base": -1.0})
    assert found.num_seeds == {"trained": 3, "base": 1}
    assert found.interval.estimate == 2.0
    # s = 1, k = 3, t(0.975, 2) = 4.30265.
    assert found.interval.high == pytest.approx(2.0 + 4.30265 / 3**0.5, abs=1e-4)


def test_intervals_cover_another_study_with_other_items_and_seeds() -> None:
    """With 4 seeds an arm, 95% intervals hold the truth; over items alone they would not."""
    chance = np.random.default_rng(0)
    num_items, num_seeds, num_studies, truth = 20, 4, 150, 0.3

    def study() -> tuple[bool, bool]:
        item_levels = chance.normal(0, 1, num_items)
        effects = chance.normal(truth, 0.4, num_items)

        def arm(name: str, shift: np.ndarray) -> list[EvalResult]:
            runs = chance.normal(0, 0.15, num_seeds)
            noise = chance.normal(0, 0.2, (num_seeds, num_items))
            return [
                result(f"{name}{n}", (item_levels + shift + runs[n] + noise[n]).tolist())
                for n in range(num_seeds)
            ]

        arms = {"msm": arm("msm", effects), "aft": arm("aft", np.zeros(num_items))}
        weights = {"msm": 1.0, "aft": -1.0}
        whole = contrast(arms, weights).interval
        first = contrast({name: of[:1] for name, of in arms.items()}, weights).interval
        covers = [
            each.low is not None and each.high is not None and each.low <= truth <= each.high
            for each in (whole, first)
        ]
        return covers[0], covers[1]

    covered = np.array([study() for _ in range(num_studies)]).mean(axis=0)
    assert 0.9 <= covered[0] <= 0.995
    assert covered[1] < 0.85


def test_items_that_one_result_could_not_score_are_left_out_and_counted() -> None:
    before, after = result("before", [0.0, 1.0, 2.0]), result("after", [1.0, 2.0, 9.0])
    rows = list(after.rows)
    rows[2] = rows[2].model_copy(update={"numbers": {**rows[2].numbers, "log_odds": None}})
    after = after.model_copy(update={"rows": tuple(rows)})
    arms = {"before": [before], "after": [after]}
    found = contrast(arms, {"after": 1.0, "before": -1.0})
    assert (found.interval.estimate, found.num_items, found.num_left_out) == (1.0, 2, 1)
    with pytest.raises(DataFormatError, match="no item in 'far'"):
        contrast(arms, {"after": 1.0, "before": -1.0}, group="far")


def asked_again(first: EvalResult, *log_odds: float) -> EvalResult:
    """Another result of the same checkpoint."""
    again = result(first.model.label + " again", log_odds)
    weights = {"weights_sha256": first.model.weights_sha256}
    return again.model_copy(update={"model": again.model.model_copy(update=weights)})


def test_results_of_one_checkpoint_are_repeats_and_no_training_seeds() -> None:
    """A silent fault: three askings of one checkpoint would pass for three training runs."""
    first = result("msm", [1.0, 1.2, 1.4])
    again = asked_again(first, 1.1, 1.3, 1.5), asked_again(first, 0.9, 1.1, 1.3)
    arms = {"base": [result("base", [0.0, 0.0, 0.0])], "msm": [first, *again]}
    found = contrast(arms, {"msm": 1.0, "base": -1.0})
    assert (found.num_seeds, found.num_repeats) == ({"msm": 1, "base": 1}, 2)
    # The interval is that over items of their mean: s = 0.2, n = 3, t(0.975, 2) = 4.30265.
    assert found.interval.high == pytest.approx(1.2 + 4.30265 * 0.2 / 3**0.5, abs=1e-4)
    # Means differ with s = 0.1; msm was asked 3 times and base once: 0.1 * sqrt(1/3 + 1).
    assert found.noise_floor == pytest.approx(4.30265 * 0.1 * (4 / 3) ** 0.5, abs=1e-5)


def test_p_values_are_those_of_errorbars() -> None:
    chance = random.Random(4)
    before = [chance.gauss(0, 1) for _ in range(30)]
    after = [value + chance.gauss(0.2, 0.5) for value in before]
    arms = {"before": [result("before", before)], "after": [result("after", after)]}
    found = contrast(arms, {"after": 1.0, "before": -1.0})
    assert found.p_value == pytest.approx(paired_compare(after, before).p_value, abs=1e-9)
    assert found.noise_floor is None


def test_within_one_condition_its_replies_are_the_unit() -> None:
    """Else a condition alone, which is one cluster, would have no interval."""
    before, after = [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0]
    arms = {
        name: [in_clusters(result(name, values), ["leaking"] * 4)]
        for name, values in (("before", before), ("after", after))
    }
    found = contrast(arms, {"after": 1.0, "before": -1.0}).interval
    # Differences 1 0 0 1: s = 0.57735, n = 4, t(0.975, 3) = 3.18245.
    assert found.high == pytest.approx(0.5 + 3.18245 * 0.57735 / 2, abs=1e-4)


@pytest.mark.parametrize(("num_items", "p_value"), [(3, 0.25), (6, 2 / 64), (40, 2 / 2**40)])
def test_items_that_all_moved_alike_are_not_taken_for_certainty(
    num_items: int, p_value: float
) -> None:
    """A silent fault: a variance of zero over three items would be p = 0."""
    arms = {
        "before": [result("before", [0.0] * num_items)],
        "after": [result("after", [1.0] * num_items)],
    }
    found = contrast(arms, {"after": 1.0, "before": -1.0})
    assert found.p_value == pytest.approx(p_value)
    still = {name: [result(name, [0.5] * num_items)] for name in ("before", "after")}
    assert contrast(still, {"after": 1.0, "before": -1.0}).p_value == 1.0
