import pytest
import torch

from tests.distributed.ranks import CPU, CUDA, Device

TWO_GPUS = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs, for NCCL"),
]


@pytest.fixture(
    scope="module",
    params=[pytest.param(CPU, id="gloo"), pytest.param(CUDA, id="nccl", marks=TWO_GPUS)],
)
def device(request: pytest.FixtureRequest) -> Device:
    """What the ranks run on: every test that takes it is made once on each."""
    chosen: Device = request.param
    return chosen
