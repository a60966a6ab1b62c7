"""Learning rate schedules."""

import pytest

from megatron_msm.config.optimization import ScheduleConfig
from megatron_msm.errors import ConfigError
from megatron_msm.train.steps.schedule import check_schedule, learning_rate


def rates(num_steps: int, **settings: object) -> list[float]:
    schedule = ScheduleConfig.model_validate(settings)
    return [
        learning_rate(schedule, peak=1.0, step=step, num_steps=num_steps, tokens_per_step=1000)
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


def test_wsd_stays_at_the_peak_and_falls_at_the_end() -> None:
    found = rates(10, kind="wsd", warmup_steps=2, decay_fraction=0.4, min_lr_fraction=0.2)
    assert found == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4])


def test_lengths_in_tokens_are_whole_steps_of_the_batch() -> None:
    in_tokens = rates(10, kind="wsd", warmup_tokens=1001, decay_tokens=3000)
    assert in_tokens == rates(10, kind="wsd", warmup_steps=2, decay_steps=3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"warmup_steps": 10}, "a warm-up of 10 steps do not fit into the 10 steps"),
        ({"warmup_tokens": 20_000}, "a warm-up of 20 steps"),
        ({"kind": "wsd", "warmup_steps": 5, "decay_steps": 6}, "5 steps and decay of 6"),
    ],
    ids=["steps", "tokens", "wsd"],
)
def test_what_does_not_fit_into_the_phase_is_refused(
    settings: dict[str, object], said: str
) -> None:
    schedule = ScheduleConfig.model_validate(settings)
    with pytest.raises(ConfigError, match=said):
        check_schedule(schedule, num_steps=10, tokens_per_step=1000)


def test_two_lengths_of_the_warm_up_are_refused() -> None:
    with pytest.raises(ValueError, match="at most one of warmup_fraction, warmup_steps"):
        ScheduleConfig(warmup_steps=1, warmup_fraction=0.1)
