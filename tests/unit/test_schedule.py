"""Learning rate schedules."""

import pytest

from megatron_msm.config.optimization import ScheduleConfig
from megatron_msm.train.schedule import learning_rate


def rates(num_steps: int, **settings: object) -> list[float]:
    schedule = ScheduleConfig.model_validate(settings)
    return [
        learning_rate(schedule, peak=1.0, step=step, num_steps=num_steps)
        for step in range(num_steps)
    ]


def test_cosine_rises_to_the_peak_and_falls_to_its_floor() -> None:
    found = rates(100, kind="cosine", warmup_fraction=0.1, min_lr_fraction=0.1)
    assert found[0] == pytest.approx(1 / 11)
    assert found[10] == max(found) == 1.0
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[55] == pytest.approx(0.55)
    assert 0.1 < found[-1] < 0.11


def test_linear_falls_evenly() -> None:
    found = rates(10, kind="linear", warmup_fraction=0.0)
    assert found == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_constant_stays_after_the_warm_up() -> None:
    assert rates(4, kind="constant", warmup_fraction=0.25) == pytest.approx([0.5, 1, 1, 1])


def test_warm_up_longer_than_the_phase_still_reaches_a_last_step() -> None:
    assert all(rate > 0 for rate in rates(3, kind="cosine", warmup_fraction=1.0))
