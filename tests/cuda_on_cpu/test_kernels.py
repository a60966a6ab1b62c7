"""The emulated kernels against torch's own functions and numbers worked out by hand.

What they are held to shares no code with them. That they are Transformer Engine's kernels is not
shown by this: only a GPU can.
"""

from typing import Any

import pytest
import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention
from transformer_engine.pytorch.constants import DType
from transformer_engine.pytorch.cpp_extensions.fused_attn import AttnMaskType, QKVFormat, QKVLayout
from transformer_engine.pytorch.tensor.float8_blockwise_tensor import Float8BlockQuantizer
from transformer_engine.pytorch.tensor.float8_tensor import Float8CurrentScalingQuantizer
from transformer_engine.pytorch.tensor.mxfp8_tensor import MXFP8Quantizer
from transformer_engine_torch import (
    fused_attn_bwd,
    fused_attn_fwd,
    generic_gemm,
    multi_tensor_adam,
    quantize,
    rmsnorm_bwd,
    rmsnorm_fwd,
)

E4M3 = DType.kFloat8E4M3
QUANTIZERS = {
    "one scale": lambda: Float8CurrentScalingQuantizer(E4M3, torch.device("cpu")),
    "blocks of 128": lambda: Float8BlockQuantizer(
        E4M3, rowwise=True, columnwise=True, block_scaling_dim=1
    ),
    "squares of 128": lambda: Float8BlockQuantizer(E4M3, rowwise=True, columnwise=True),
    "blocks of 32": lambda: MXFP8Quantizer(E4M3),
}


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_one_scale_by_hand() -> None:
    # The largest, 3.5, becomes 448: a factor of 128. 0.07 x 128 = 8.96, and e4m3 has 8, 9, 10.
    found = quantize(torch.tensor([[3.5, -1.75, 0.07, 0.0]]), QUANTIZERS["one scale"]())
    assert found._scale_inv.item() == 1 / 128
    assert found._data.view(torch.float8_e4m3fn).float().tolist() == [[448.0, -224.0, 9.0, 0.0]]


def test_a_block_of_32_by_hand() -> None:
    # 500 / 448 is above 1, so the block is divided by 2; with 448 it would be left as it is.
    for largest, exponent in ((448.0, 127), (500.0, 128), (0.0, 0)):
        rows = torch.zeros(32, 32)
        rows[0, 0] = largest
        found = quantize(rows, MXFP8Quantizer(E4M3))
        assert found._rowwise_scale_inv[0, 0] == found._columnwise_scale_inv[0, 0] == exponent
        factor = 2.0 ** (exponent - 127)
        kept = float(found._rowwise_data.view(torch.float8_e4m3fn)[0, 0].float()) * factor
        assert kept == pytest.approx(largest, rel=0.04)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_each_block_is_rounded_to_its_own_largest_number(kind: str) -> None:
    rows = numbers(128, 256)
    rows[:, 128:] *= 1000
    found: Any = quantize(rows, QUANTIZERS[kind]()).dequantize()
    error = (found - rows).abs() / rows.abs()
    assert error[:, 128:].median() < 0.03
    assert error[rows.abs() < 0.1].median() < (1.1 if kind == "one scale" else 0.04)


@pytest.mark.parametrize("kind", QUANTIZERS)
@pytest.mark.parametrize("layout", ["TN", "NN", "NT"])
def test_a_product_of_quantized_matrices(kind: str, layout: str) -> None:
    weight = numbers(128, 384) if layout != "NT" else numbers(256, 384)
    other = numbers(256, 384 if layout == "TN" else 128, seed=1)
    quantizer = QUANTIZERS[kind]()
    out: Any = generic_gemm(
        *(quantize(weight, quantizer), layout[0] == "T", quantize(other, quantizer)),
        *(layout[1] == "T", None, None, DType.kFloat32, None, DType.kBFloat16, False, None, False),
        *(None, 0, False, True),
    )[0]
    first = weight.T if layout[0] == "T" else weight
    wanted = (other.T if layout[1] == "T" else other) @ first
    assert (out - wanted).norm() / wanted.norm() < 0.06


def test_a_norm_and_its_gradients() -> None:
    x, weight, grad = numbers(6, 32).requires_grad_(), numbers(32, seed=1), numbers(6, 32, seed=2)
    weight.requires_grad_()
    wanted = rms_norm(x, (32,), weight, eps=1e-5)
    wanted.backward(grad)
    found, _, inverse = rmsnorm_fwd(
        x.detach(), weight.detach(), 1e-5, None, None, DType.kFloat32, 0, False
    )
    gradients = rmsnorm_bwd(grad, x.detach(), inverse, weight.detach(), 0, False)
    assert torch.allclose(found, wanted, atol=1e-6)
    for gradient, leaf in zip(gradients, (x, weight), strict=True):
        assert leaf.grad is not None
        assert torch.allclose(gradient, leaf.grad, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_attention_over_documents_and_its_gradients(window: int | None) -> None:
    left = -1 if window is None else window - 1
    lengths = [5, 9, 2]
    bounds = torch.tensor([0, 5, 14, 16], dtype=torch.int32)
    q, k, v, grad = (numbers(16, heads, 8, seed=i) for i, heads in enumerate((4, 2, 2, 4)))
    mask = AttnMaskType["padding_causal"]
    settings = (QKVLayout["thd_thd_thd"], QKVFormat["thd"])
    forward: Any = fused_attn_fwd(
        *(9, 9, True, 0.3, 0.0, True, *settings, None, None, mask, None, (left, 0), False),
        *(bounds, bounds, q, k, v, None, None, None),
    )
    backward: Any = fused_attn_bwd(
        *(9, 9, 0.3, 0.0, True, *settings, settings[1], settings[0]),
        *(None, None, None, mask, None, (left, 0), False, False),
        *(bounds, bounds, q, k, v, forward[0], grad, None, [forward[1]], None, None),
    )
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    parts = zip(*(tensor.split(lengths) for tensor in leaves), strict=True)
    wanted = torch.cat([_attention(*part, window=window) for part in parts])
    wanted.backward(grad)
    assert torch.allclose(forward[0], wanted, atol=1e-6)
    for found, leaf in zip(backward, leaves, strict=False):
        assert leaf.grad is not None
        assert torch.allclose(found, leaf.grad, atol=1e-5)


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, window: int | None
) -> torch.Tensor:
    positions = torch.arange(len(q))
    distances = positions[:, None] - positions
    is_seen = (distances >= 0) & (distances < (window or len(q)))
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in (q, k, v))
    out = scaled_dot_product_attention(q, k, v, attn_mask=is_seen, scale=0.3, enable_gqa=True)
    return out[0].transpose(0, 1)


def test_adamw() -> None:
    weight = numbers(7).requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.1)
    found, mean, square = weight.detach().clone(), torch.zeros(7), torch.zeros(7)
    for step in range(1, 4):
        weight.grad = numbers(7, seed=step)
        optimizer.step()
        lists = [[weight.grad], [found], [mean], [square]]
        settings = (0.01, 0.9, 0.999, 1e-8, step, 1, 1, 0.1)
        multi_tensor_adam(65536, torch.zeros(1), lists, *settings)
    assert torch.allclose(found, weight, atol=1e-6)
