"""Megatron-core on the CPU: CUDA names that mean it, messages to oneself, and the gradient norm."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from megatron_msm.runtime.cpu_redirects import _unless_alone, accurate_norm


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


def test_only_a_message_to_oneself_is_left_out() -> None:
    sent = []

    def collective(output: torch.Tensor, input_: torch.Tensor, *, group: object) -> str:
        sent.append(group)
        return "sent"

    def group_of(size: int) -> SimpleNamespace:
        return SimpleNamespace(size=lambda: size)

    call = _unless_alone(collective)
    buffer, other = torch.ones(4), torch.ones(4)
    assert call(buffer, buffer, group=group_of(1)) is None
    assert call(buffer[:2], buffer, group=group_of(2)) == "sent"
    assert call(other, buffer, group=group_of(1)) == "sent", "a copy is still a copy"
    assert len(sent) == 2


PROGRAM = """
import torch
from megatron_msm.runtime import cpu_redirects

before = torch.zeros(1).type()
cpu_redirects.install()
cpu_redirects.install()
made = torch.zeros(2, device="cuda")
print(before, made.device, made.type(), made.cuda() is made, torch.cuda.current_device())
state = torch.cuda.get_rng_state()
first = torch.rand(3)
torch.cuda.set_rng_state(state)
print(torch.equal(first, torch.rand(3)))
"""


def test_cuda_names_mean_the_cpu_once_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "torch.FloatTensor cpu torch.cuda.FloatTensor True cpu",
        "True",
    ]
