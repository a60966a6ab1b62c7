"""The FLOP formula against pairs of tokens/s and TFLOP/s that NVIDIA published."""

import pytest

from megatron_msm.errors import ConfigError
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.flops import attention_flops_per_token, flops_per_token, utilization
from megatron_msm.models.sizes.gpus import GPUS, gpu_named, gpu_of_device
from tests.unit.models.shapes import (
    GEMMA3_12B,
    LLAMA_8B,
    LLAMA_70B,
    QWEN3_8B,
    QWEN3_32B,
    QWEN25_32B,
)

# Megatron-Bridge docs/performance-summary-archive.md (25.11, 26.02.01, 26.06 SFT), its Qwen3-8B
# model card of 2026-07, NeMo AutoModel docs/performance-summary.mdx.
PUBLISHED = [
    (LLAMA_8B, 8192, 14_451, 744),
    (LLAMA_70B, 8192, 1_602, 719),
    (LLAMA_70B, 8192, 1_639, 736),
    (LLAMA_70B, 4096, 1_638, 710),
    (QWEN3_8B, 4096, 10_456, 512.7),
    (LLAMA_70B, 8192, 866.8, 389),
]


@pytest.mark.parametrize(("shape", "seq_length", "tokens_per_s", "tflops"), PUBLISHED)
def test_published_pairs_within_half_a_percent(
    shape: ModelShape, seq_length: int, tokens_per_s: float, tflops: float
) -> None:
    found = tokens_per_s * flops_per_token(shape, seq_length) / 1e12
    assert found == pytest.approx(tflops, rel=0.005)


def test_counting_all_pairs_gives_megatron_lms_figure() -> None:
    # Megatron-LM examples/llama/README.md: 8B, 13,812 tokens/s, 800 TFLOP/s, attention in full.
    all_pairs = flops_per_token(LLAMA_8B, 8192) + attention_flops_per_token(LLAMA_8B, 8192)
    assert 13_812 * all_pairs / 1e12 == pytest.approx(800, rel=0.005)


def test_lora_saves_a_third_of_the_linear_layers_only() -> None:
    full, lora = (flops_per_token(QWEN25_32B, 4096, lora=lora) for lora in (False, True))
    attention = attention_flops_per_token(QWEN25_32B, 4096)
    assert lora - attention == pytest.approx((full - attention) * 2 / 3)
    # AutoModel's Qwen2.5-32B row: 2,250 tokens/s, 301 TFLOP/s by a formula of its own.
    assert 2_250 * lora / 1e12 == pytest.approx(301, rel=0.03)


def test_pairs_beyond_a_window_are_not_counted() -> None:
    # 5 of 6 layers have a window of 1,024; pairs are counted one by one.
    full, window = (sum(range(1, n + 1)) for n in (8192, 1024))
    pairs = 8 * full + 40 * (window + (8192 - 1024) * 1024)
    found = attention_flops_per_token(GEMMA3_12B, 8192)
    assert found == pytest.approx(12 * GEMMA3_12B.query_size * pairs / 8192, rel=1e-3)
    assert attention_flops_per_token(GEMMA3_12B, 512) == 6 * 48 * GEMMA3_12B.query_size * 512


def test_utilization_names_its_peak() -> None:
    of_token = flops_per_token(LLAMA_8B, 8192)
    bf16 = utilization(14_451, of_token, GPUS["h100"], "bf16")
    fp8 = utilization(14_451, of_token, GPUS["h100"], "fp8")
    assert bf16.share == pytest.approx(0.752, abs=0.001)
    assert fp8.share == pytest.approx(0.376, abs=0.001)
    assert "989 TFLOP/s, bf16, H100" in bf16.peak
    assert "1979 TFLOP/s, fp8, H100" in fp8.peak


def test_flops_of_the_models_of_the_paper() -> None:
    assert flops_per_token(QWEN3_32B, 8192) == pytest.approx(2.177e11, rel=1e-3)
    assert flops_per_token(QWEN25_32B, 8192) == pytest.approx(2.080e11, rel=1e-3)


def test_gpus_are_found_by_their_names() -> None:
    assert gpu_of_device("NVIDIA H100 80GB HBM3") is GPUS["h100"]
    assert gpu_of_device("NVIDIA A100-SXM4-80GB") is GPUS["a100"]
    assert gpu_of_device("Tesla T4") is None
    with pytest.raises(ConfigError, match=r"'h20'.*h100"):
        gpu_named("h20")
