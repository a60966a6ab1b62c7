import pytest

from evals.statistics.paired import paired_difference, verdict
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import EvalResult, Interval
from tests.unit.evals.tasks.choice.results import result


def test_difference_is_by_item_and_not_of_means() -> None:
    before = result("base", [0.0, 10.0, -10.0])
    after = result("after", [0.9, 11.0, -8.9])
    difference = paired_difference(before, after)
    # Differences 0.9, 1.0, 1.1: s = 0.1, t(0.975, 2) = 4.30265.
    assert difference.estimate == pytest.approx(1.0)
    assert difference.low == pytest.approx(1.0 - 4.30265 * 0.1 / 3**0.5, abs=1e-5)
    assert difference.high == pytest.approx(1.0 + 4.30265 * 0.1 / 3**0.5, abs=1e-5)


def test_items_are_matched_by_id_and_not_by_index() -> None:
    before = result("base", [0.0, 5.0, 9.0])
    after = result("after", [1.0, 6.0, 10.0])
    shuffled = after.model_copy(update={"rows": after.rows[::-1]})
    assert paired_difference(before, shuffled) == Interval(estimate=1.0, low=1.0, high=1.0)


def test_a_tier_is_compared_alone() -> None:
    before = result("base", {"near": [0.0, 0.0], "far": [1.0, 1.0]})
    after = result("after", {"near": [2.0, 2.0], "far": [1.0, 1.0]})
    assert paired_difference(before, after, group="near").estimate == 2.0
    assert paired_difference(before, after, group="far").estimate == 0.0


BASE = result("base", [0.0, 1.0])


def measured_otherwise(**changes: object) -> EvalResult:
    protocol = BASE.protocol.model_copy(update=changes)
    return BASE.model_copy(update={"protocol": protocol})


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (measured_otherwise(version=2), "protocol"),
        (measured_otherwise(items_sha256="other"), "item file"),
        (measured_otherwise(settings={**BASE.protocol.settings, "split": "dev"}), "split"),
        (measured_otherwise(settings={**BASE.protocol.settings, "target": "x"}), "target"),
        (measured_otherwise(chat_template_sha256="other"), "chat template"),
        (BASE.model_copy(update={"rows": BASE.rows[:1]}), "item ids"),
    ],
    ids=["protocol", "items", "split", "target", "template", "ids"],
)
def test_results_measured_otherwise_are_refused(other: EvalResult, name: str) -> None:
    with pytest.raises(DataFormatError, match=f"differ in their {name}"):
        paired_difference(BASE, other)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ((0.8, 0.6, 1.0), "moved toward `homemade` by 0.80 [0.60, 1.00] nats per token"),
        ((-0.8, -1.0, -0.6), "moved toward `affordability` by 0.80 [0.60, 1.00] nats per token"),
        ((0.1, -0.2, 0.4), "no effect shown: the interval [-0.20, +0.40] includes zero"),
        ((0.1, 0.0, 0.2), "no effect shown: the interval [+0.00, +0.20] includes zero"),
        ((0.1, None, None), "no effect shown: one item gives no interval"),
    ],
)
def test_verdict(interval: tuple[float, float | None, float | None], text: str) -> None:
    estimate, low, high = interval
    shown = verdict(Interval(estimate=estimate, low=low, high=high), BASE.headline_metric)
    assert shown == text
