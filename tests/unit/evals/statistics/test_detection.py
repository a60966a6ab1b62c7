"""Sensitivity and bias: worked by hand, simulated, and how often the intervals cover."""

from collections.abc import Sequence

import numpy as np
import pytest

from evals.report.both_orders import both_orders
from evals.report.comparison import compare
from evals.statistics.detection import Detection, Sides, detection_contrast
from megatron_msm.formats.eval_result import EvalResult, Interval
from tests.unit.evals.tasks.choice.results import result, row


def two_alternatives(
    when_right: Sequence[float], when_wrong: Sequence[float], clusters: Sequence[str]
) -> Detection:
    """One checkpoint by itself."""
    return detection_contrast({"arm": [Sides(when_right, when_wrong)]}, {"arm": 1.0}, clusters)


def test_a_published_case() -> None:
    """Macmillan and Creelman: H = .8 and F = .2 are d' = 1.683 (yes or no), over the root of 2."""
    hits, false = [1.0] * 8000 + [0.0] * 2000, [1.0] * 2000 + [0.0] * 8000
    found = two_alternatives(hits, false, [str(n % 50) for n in range(10_000)])
    assert found.sensitivity.estimate == pytest.approx(1.683 / 2**0.5, abs=1e-3)
    assert found.criterion.estimate == pytest.approx(0.0, abs=1e-9)


def test_one_who_always_takes_the_first_has_bias_and_no_sensitivity() -> None:
    found = two_alternatives([1.0] * 20, [1.0] * 20, [str(n) for n in range(20)])
    assert found.sensitivity.estimate == 0.0
    # 20.5 of 21 on both sides: z = 1.98.
    assert found.criterion.estimate == pytest.approx(-1.98, abs=5e-3)
    assert two_alternatives([1.0], [0.0], ["a"]).sensitivity.low is None


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    stream, truth, bias, held = np.random.default_rng(0), 0.8, -0.3, 0
    num_items, num_studies = 120, 200
    for _ in range(num_studies):
        noise = stream.normal(size=(2, num_items))
        # Options differ by d' / root 2 with spread 1, and there is a lean to the first.
        hits = noise[0] < truth / 2**0.5 - bias
        false = noise[1] < -truth / 2**0.5 - bias
        found = two_alternatives(
            hits.astype(float).tolist(),
            false.astype(float).tolist(),
            list(map(str, range(num_items))),
        ).sensitivity
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert 0.92 <= held / num_studies <= 0.985


def test_arms_are_told_apart_by_preference_and_by_order() -> None:
    leaning = [row(f"near-{n}", 1.0, -1.0) for n in range(12)]
    preferring = [row(f"near-{n}", 1.0, 1.0) for n in range(12)]
    base, moved = result("base", [0.0] * 12), result("moved", [0.0] * 12)
    (found,) = compare([
        base.model_copy(update={"rows": tuple(leaning)}),
        moved.model_copy(update={"rows": tuple(preferring)}),
    ])  # fmt: skip
    orders = both_orders(found)
    assert orders is not None
    by_arm = orders.levels
    assert by_arm["base"].sensitivity.estimate == pytest.approx(0.0)
    assert by_arm["base"].criterion.estimate < -1.5
    assert by_arm["moved"].sensitivity.estimate > 2
    assert by_arm["moved"].criterion.estimate == pytest.approx(0.0)


# Of three items, how often the first is chosen. Three clusters hold the same three, so that items
# add no variance. With half an answer added the rates of all nine are (3 * 2.5 + .5) / 10 = .8,
# (3 * 1.5 + .5) / 10 = .5 and (3 * .5 + .5) / 10 = .2; their z are .84162, 0 and -.84162.
OFTEN, HALF, SELDOM = (1.0, 1.0, 0.5), (1.0, 0.5, 0.0), (0.5, 0.0, 0.0)


def checkpoint(label: str, when_right: Sequence[float], when_wrong: Sequence[float]) -> EvalResult:
    # Log-odds are the target's, which is listed first in the first order.
    rows = [
        row(f"near-{n}", when_right[n % 3] - 0.5, 0.5 - when_wrong[n % 3]).model_copy(
            update={"cluster": f"c{n // 3}"}
        )
        for n in range(9)
    ]
    return result(label, [0.0] * 9).model_copy(update={"rows": tuple(rows)})


BASE = checkpoint("base", HALF, HALF)  # d' = 0, c = 0
MSM = (
    checkpoint("msm#1", OFTEN, SELDOM),  # d' = (.84162 + .84162) / root 2 = 1.19023, c = 0
    checkpoint("msm#2", OFTEN, HALF),  # d' = .84162 / root 2 = .59512, c = -.42081
)
LEAN = (
    checkpoint("lean#1", OFTEN, OFTEN),  # d' = 0, c = -.84162
    checkpoint("lean#2", HALF, HALF),  # d' = 0, c = 0
)


def bounds(interval: Interval) -> tuple[float | None, ...]:
    return interval.estimate, interval.low, interval.high


def test_training_seeds_are_the_unit_worked_by_hand() -> None:
    (found,) = compare([BASE, *MSM, *LEAN], ["leans=+lean,-msm"])
    orders = both_orders(found)
    assert orders is not None
    # Mean .89267; s = .59511 / root 2 = .42081, over root 2 seeds .29756; t(0.975, 1) = 12.7062.
    sensitivity = pytest.approx((0.89267, 0.89267 - 3.78082, 0.89267 + 3.78082), abs=2e-4)
    # Mean -.21040; s = .29756, over root 2 .21040; half 2.67343.
    criterion = pytest.approx((-0.21040, -0.21040 - 2.67343, -0.21040 + 2.67343), abs=2e-4)
    level, change = orders.levels["msm"], orders.changes["msm"]
    for one in (level, change):  # the base's own d' and c are 0, and it is one training run
        assert bounds(one.sensitivity) == sensitivity
        assert bounds(one.criterion) == criterion
    assert (level.num_seeds, change.num_seeds) == ({"msm": 2}, {"msm": 2, "base": 1})
    assert set(orders.changes) == {"msm", "lean"}

    (leans,) = orders.contrasts.values()
    assert list(orders.contrasts) == ["leans: + lean - msm"]
    assert bounds(leans.sensitivity) == pytest.approx((-0.89267, -4.67349, 2.88815), abs=2e-4)
    # Mean of lean's c -.42081, s / root 2 = .42081; variances .17708 + .04427 = .47048 squared,
    # with .22135^2 / (.17708^2 + .04427^2) = 1.4706 degrees of freedom: t(0.975) = 6.188.
    assert bounds(leans.criterion) == pytest.approx(
        (-0.21040, -0.21040 - 6.188 * 0.47048, -0.21040 + 6.188 * 0.47048), abs=2e-3
    )


def test_repeats_of_one_checkpoint_are_averaged_and_no_seeds() -> None:
    weights = MSM[0].model.weights_sha256
    again = MSM[1].model.model_copy(update={"weights_sha256": weights})
    (found,) = compare([BASE, MSM[0], MSM[1].model_copy(update={"model": again})])
    orders = both_orders(found)
    assert orders is not None
    change = orders.changes["msm"]
    assert change.num_seeds == {"msm": 1, "base": 1}
    # Where the other is listed first (.5 + 1.5) / 2 of three a cluster: 3.5 / 10, z = -.38532.
    expected = (0.84162 + 0.38532) / 2**0.5
    assert bounds(change.sensitivity) == pytest.approx((expected,) * 3, abs=1e-4)


def test_a_change_over_seeds_holds_the_truth_where_one_seed_would_not() -> None:
    stream, truth = np.random.default_rng(2), 1.0
    num_items, num_seeds, num_studies = 60, 4, 150
    clusters = [str(n) for n in range(num_items)]

    def run(mean: float) -> Sides:
        half = stream.normal(mean, 0.5) / 2**0.5
        noise = stream.normal(size=(2, num_items))
        when_right, when_wrong = noise[0] < half, noise[1] < -half
        return Sides(when_right.astype(float).tolist(), when_wrong.astype(float).tolist())

    def is_held(of_arms: dict[str, list[Sides]]) -> bool:
        found = detection_contrast(of_arms, {"after": 1.0, "before": -1.0}, clusters).sensitivity
        assert found.low is not None
        assert found.high is not None
        return found.low <= truth <= found.high

    held = []
    for _ in range(num_studies):
        of_arms = {
            name: [run(mean) for _ in range(num_seeds)]
            for name, mean in (("after", truth), ("before", 0.0))
        }
        first = {name: runs[:1] for name, runs in of_arms.items()}
        held.append((is_held(of_arms), is_held(first)))
    over_seeds, of_one = np.array(held).mean(axis=0)
    assert over_seeds >= 0.92
    assert of_one < 0.8
