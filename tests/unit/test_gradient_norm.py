"""The gradient norm on the CPU: right, however many gradients there are."""

import pytest
import torch

from megatron_msm.runtime.cpu_redirects import accurate_norm


@pytest.mark.parametrize("shape", [(0,), (1,), (4095,), (4096,), (3, 5000), (3_000_001,)])
def test_the_norm_is_that_of_float64(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(5)
    gradients = torch.randn(shape, generator=generator) * 1e-3
    gradients.view(-1)[:3] *= 1e3
    expected = torch.linalg.vector_norm(gradients.double())
    assert accurate_norm(gradients).dtype == torch.float64
    torch.testing.assert_close(accurate_norm(gradients), expected, rtol=3e-6, atol=0.0)


def test_a_nan_and_an_infinity_show() -> None:
    gradients = torch.ones(10_000)
    gradients[5000] = float("nan")
    assert accurate_norm(gradients).isnan()
    gradients[5000] = float("inf")
    assert accurate_norm(gradients).isinf()
