"""What is called an effect: after correction, and above the noise floor."""

import random

from evals.report.comparison import Evaluation, compare
from megatron_msm.formats.eval_result import EvalResult
from tests.unit.evals.tasks.choice.results import result


def noisy(label: str, shift: float, seed: int) -> EvalResult:
    chance = random.Random(seed)
    return result(label, [shift + chance.gauss(0, 1) for _ in range(40)])


def evaluation(*results: EvalResult, contrasts: tuple[str, ...] = ()) -> Evaluation:
    (found,) = compare(results, contrasts)
    return found


def test_an_effect_that_many_comparisons_would_show_by_chance_is_not_called_one() -> None:
    base = noisy("base", 0.0, 0)
    alone = evaluation(base, noisy("a", 0.35, 1))
    change = alone.changes[0].change
    assert change is not None
    assert change.found.p_value is not None
    assert 0.001 < change.found.p_value < 0.05
    assert change.shows_effect
    among = evaluation(base, noisy("a", 0.35, 1), *(noisy(f"x{n}", 0.0, n) for n in range(2, 40)))
    change = among.changes[0].change
    assert change is not None
    assert not change.shows_effect
    assert "not after Holm over 39 comparisons (p" in change.text


def test_a_change_no_larger_than_repeats_make_is_inside_the_noise_floor() -> None:
    base = result("base#1", [0.0, 0.1, 0.2])
    again = result("base#2", [0.5, 0.6, 0.7])
    model = again.model.model_copy(update={"weights_sha256": base.model.weights_sha256})
    found = evaluation(
        base, again.model_copy(update={"model": model}), result("msm", [0.55, 0.66, 0.74])
    )
    change = found.changes[0].change
    assert change is not None
    assert change.interval.is_above_zero
    assert not change.shows_effect
    assert change.text.startswith("inside the noise floor: repeats of one checkpoint differ by up")
    assert found.groups[None][0].num_seeds == 1


def test_contrasts_are_by_group_too() -> None:
    arms = [
        result(name, {"near": [near, near + 0.1, near], "far": [far, far + 0.1, far - 0.2]})
        for name, near, far in [("base", 0.0, 0.0), ("msm(a)", 0.2, 0.1), ("aft(x)", 0.1, 0.1),
                                ("both", 1.3, 0.2)]
    ]  # fmt: skip
    (asked,) = evaluation(*arms, contrasts=("did=+both,-msm(a),-aft(x),+base",)).contrasts
    assert asked.groups["near"].interval.estimate == 1.0
    assert abs(asked.groups["far"].interval.estimate) < 1e-9
    # 6 changes and 2 contrasts by group.
    assert asked.groups["far"].num_comparisons == 8
    assert asked.overall.num_comparisons == 4
