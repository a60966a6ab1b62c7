"""Sensitivity and bias: worked by hand, simulated, and how often the intervals cover."""

import numpy as np
import pytest

from evals.report.both_orders import detections
from evals.report.comparison import compare
from evals.statistics.detection import two_alternatives
from tests.unit.evals.tasks.choice.results import result, row


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
    by_arm = detections(found)
    assert by_arm["base"].sensitivity.estimate == pytest.approx(0.0)
    assert by_arm["base"].criterion.estimate < -1.5
    assert by_arm["moved"].sensitivity.estimate > 2
    assert by_arm["moved"].criterion.estimate == pytest.approx(0.0)
