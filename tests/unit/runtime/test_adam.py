"""AdamW behind FusedAdam's state layout: held to the paper's update, worked in float64."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from megatron_msm.runtime.adam import GroupStepAdamW

Float64 = npt.NDArray[np.float64]
LR, BETAS, EPS, DECAY = 1e-2, (0.9, 0.95), 1e-8, 0.1


def adam(weights: list[torch.nn.Parameter], **changes: object) -> GroupStepAdamW:
    settings = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": DECAY, **changes}
    return GroupStepAdamW(weights, **settings)  # type: ignore[arg-type]


def by_the_paper(start: Float64, gradients: list[Float64]) -> Float64:
    """Algorithm 2 of arXiv 1711.05101, with decoupled decay scaled by the learning rate."""
    weight, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step, gradient in enumerate(gradients, 1):
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        unbiased = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
        weight = weight - LR * (unbiased[0] / (np.sqrt(unbiased[1]) + EPS) + DECAY * weight)
    return weight


def test_steps_are_those_of_the_paper() -> None:
    generator = np.random.default_rng(3)
    start = generator.normal(size=(7, 5))
    gradients = [generator.normal(size=(7, 5)) * 10.0**-n for n in range(6)]
    weight = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    optimizer = adam([weight])
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    expected = by_the_paper(start, gradients)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_group_counts_its_steps_and_weights_hold_only_moments() -> None:
    weight, idle = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = adam([weight, idle])
    for _ in range(2):
        weight.grad = torch.ones(3)
        optimizer.step()
    assert optimizer.param_groups[0]["step"] == 2
    assert set(optimizer.state[weight]) == {"exp_avg", "exp_avg_sq"}
    assert not optimizer.state[idle]
    assert torch.equal(idle.detach(), torch.ones(3))


def test_steps_go_on_from_a_state_that_was_loaded() -> None:
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    whole, first_half = (adam([weight]) for weight in weights)

    def step(optimizer: GroupStepAdamW, weight: torch.nn.Parameter, size: float) -> None:
        weight.grad = torch.full((3,), size)
        optimizer.step()

    for size in (1.0, 0.1, 5.0):
        step(whole, weights[0], size)
    step(first_half, weights[1], 1.0)
    second_half = adam([weights[1]])
    second_half.load_state_dict(first_half.state_dict())
    for size in (0.1, 5.0):
        step(second_half, weights[1], size)
    assert torch.equal(weights[0].detach(), weights[1].detach())


@pytest.mark.parametrize("option", ["adam_w_mode", "capturable"])
def test_what_is_not_implemented_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"not implemented|only decoupled"):
        adam([torch.nn.Parameter(torch.ones(1))], **{option: option == "capturable"})
