"""The norm over all heads, on one rank, beside torch's own; ranks are in tests/distributed."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_msm.models.layers.norm_over_heads import NormOverHeads

ONE_RANK: Any = SimpleNamespace(size=lambda: 1, rank=lambda: 0)


@pytest.mark.parametrize(
    ("dtype", "relative"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str
)
def test_output_and_gradients_are_torchs(
    dtype: torch.dtype, relative: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: torch.device("cpu"))
    torch.manual_seed(1)
    config: Any = SimpleNamespace(params_dtype=dtype)
    norm = NormOverHeads(config, 8, 0.3, num_heads=6, tp_group=ONE_RANK)
    norm.weight.data.copy_(torch.randn(48))
    heads_SBND = torch.randn(5, 1, 6, 8).to(dtype).requires_grad_()
    direction = torch.randn(5, 1, 6, 8)
    found = norm(heads_SBND)
    assert found.dtype == dtype
    gradients = torch.autograd.grad((found.float() * direction).sum(), (heads_SBND, norm.weight))

    wide = heads_SBND.detach().double().requires_grad_()
    weight = norm.weight.detach().double().requires_grad_()
    expected = torch.nn.functional.rms_norm(wide.flatten(2), (48,), weight, 0.3).view_as(wide)
    wanted = torch.autograd.grad((expected * direction).sum(), (wide, weight))
    for one, other in zip((found, *gradients), (expected, *wanted), strict=True):
        assert float((one.double() - other).norm() / other.norm()) < relative
