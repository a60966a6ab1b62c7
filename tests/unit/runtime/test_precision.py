"""FP8 settings: megatron-core takes them as they are translated, and what cannot run is refused."""

import importlib.util
import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.enums import Fp8Recipe
from megatron.core.fp8_utils import is_first_last_bf16_layer
from megatron.core.optimizer import OptimizerConfig
from pydantic import ValidationError

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.precision import Fp8Config
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.errors import ConfigError
from megatron_msm.models.build import transformer_config
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.batch_shape import BatchShape
from megatron_msm.models.sizes.layout import check_layout, violations
from megatron_msm.runtime.device import Runtime, select_runtime, set_cuda_environment
from megatron_msm.runtime.fp8 import RECIPES, Machine, megatron_precision, obstacles
from tests.unit.models.shapes import LLAMA_8B, QWEN3_32B, SMOLLM2_135M

H100 = Machine("NVIDIA H100", (9, 0), (13, 0), (2, 20))
BATCH = BatchShape("midtrain", seq_length=4096, micro_batch_size=1, global_batch_size=8, align=1)


def fp8(**settings: Any) -> Fp8Config:
    return Fp8Config(**settings)


@pytest.mark.parametrize(
    ("settings", "transformer", "data_parallel", "optimizer"),
    [
        (
            {},
            {"fp8": "hybrid", "fp8_recipe": Fp8Recipe.tensorwise, "first_last_layers_bf16": False},
            {"fp8_param_gather": False},
            {"fp8_recipe": "tensorwise"},
        ),
        (
            {"recipe": "delayed", "amax_history_steps": 16, "amax": "most_recent", "margin": 2},
            {
                "fp8_recipe": Fp8Recipe.delayed,
                "fp8_amax_history_len": 16,
                "fp8_amax_compute_algo": "most_recent",
                "fp8_margin": 2,
            },
            {},
            {"fp8_recipe": "delayed"},
        ),
        (
            {"recipe": "blockwise", "format": "e4m3", "first_layers_bf16": 1},
            {
                "fp8": "e4m3",
                "fp8_recipe": Fp8Recipe.blockwise,
                "first_last_layers_bf16": True,
                "num_layers_at_start_in_bf16": 1,
                "num_layers_at_end_in_bf16": 0,
            },
            {},
            {},
        ),
        (
            {"recipe": "mxfp8", "param_gather": True},
            {"fp8_recipe": Fp8Recipe.mxfp8, "fp8_param": True},
            {"fp8_param_gather": True, "reuse_grad_buf_for_mxfp8_param_ag": True},
            {"reuse_grad_buf_for_mxfp8_param_ag": True},
        ),
    ],
    ids=["defaults", "delayed", "blockwise", "mxfp8"],
)
def test_megatron_core_takes_the_translated_settings(
    settings: dict[str, Any],
    transformer: dict[str, Any],
    data_parallel: dict[str, Any],
    optimizer: dict[str, Any],
) -> None:
    config = fp8(**settings)
    runtime = Runtime("cpu", torch.device("cpu"), "gloo", torch.bfloat16, config)
    translated = megatron_precision(config)
    # megatron-core checks its own fields as it builds these.
    built = [
        (transformer_config(LLAMA_8B, ParallelConfig(), runtime), transformer),
        (DistributedDataParallelConfig(**translated.data_parallel), data_parallel),
        (OptimizerConfig(**translated.optimizer), optimizer),
    ]
    for found, expected in built:
        assert {name: getattr(found, name) for name in expected} == expected


def test_the_layers_that_megatron_core_keeps_in_bf16_are_those_asked_for() -> None:
    runtime = Runtime(
        *("cpu", torch.device("cpu"), "gloo", torch.bfloat16),
        fp8(first_layers_bf16=1, last_layers_bf16=2),
    )
    config = transformer_config(LLAMA_8B, ParallelConfig(), runtime)
    in_bf16 = [layer for layer in range(32) if is_first_last_bf16_layer(config, layer)]
    assert in_bf16 == [0, 30, 31]


def test_without_fp8_nothing_is_set() -> None:
    runtime = Runtime("cpu", torch.device("cpu"), "gloo", torch.bfloat16)
    assert transformer_config(LLAMA_8B, ParallelConfig(), runtime).fp8 is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "delayed", "first_layers_bf16": 1}, "need another recipe than 'delayed'"),
        ({"recipe": "blockwise", "margin": 1}, "margin: only recipe 'delayed' has this"),
        ({"recipe": "int8"}, "'delayed', 'tensorwise', 'blockwise' or 'mxfp8'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        fp8(**settings)


def test_fp8_needs_bf16_for_the_rest() -> None:
    with pytest.raises(ValidationError, match="needs dtype: bf16"):
        RuntimeConfig(dtype="fp32", fp8=fp8())


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_runs_where_it_should(recipe: Any) -> None:
    runs_on_h100 = not list(obstacles(fp8(recipe=recipe), H100))
    assert runs_on_h100 == (recipe != "mxfp8")
    b200 = replace(H100, gpu="NVIDIA B200", compute_capability=(10, 0))
    assert not list(obstacles(fp8(recipe=recipe), b200))


@pytest.mark.parametrize(
    ("recipe", "changes", "expected"),
    [
        ("tensorwise", {"gpu": None, "compute_capability": None}, ["torch sees none"]),
        (
            "tensorwise",
            {"gpu": "NVIDIA A100", "compute_capability": (8, 0)},
            ["needs compute capability 8.9 or higher, but NVIDIA A100 has 8.0"],
        ),
        (
            "blockwise",
            {"gpu": "NVIDIA L40S", "compute_capability": (8, 9), "cuda": (12, 4)},
            ["9.0 or higher, but NVIDIA L40S has 8.9", "CUDA 12.9 or later, found 12.4"],
        ),
        ("mxfp8", {}, ["10.0 or higher, but NVIDIA H100 has 9.0"]),
        ("mxfp8", {"compute_capability": (12, 0)}, ["not there yet for compute capability 12.0"]),
        ("delayed", {"transformer_engine": None}, ["found none: pip install"]),
        (
            "tensorwise",
            {"transformer_engine": (2, 1)},
            ["Transformer Engine 2.2 or later, found 2.1"],
        ),
    ],
)
def test_what_a_machine_lacks_is_named(
    recipe: Any, changes: dict[str, Any], expected: list[str]
) -> None:
    found = list(obstacles(fp8(recipe=recipe), replace(H100, **changes)))
    assert len(found) == len(expected)
    for sentence, part in zip(found, expected, strict=True):
        assert part in sentence


def test_determinism_is_set_and_checked_before_a_gpu_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = ("NVTE_ALLOW_NONDETERMINISTIC_ALGO", "CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO")
    monkeypatch.setattr(os, "environ", {"NCCL_ALGO": "Tree"})
    set_cuda_environment(ParallelConfig())
    assert not set(variables[:2]) & set(os.environ)
    set_cuda_environment(ParallelConfig(), deterministic=True)
    assert [os.environ[name] for name in variables] == ["0", ":4096:8", "Tree"]
    for name in variables:
        monkeypatch.setattr(os, "environ", {name: "1"})
        with pytest.raises(ConfigError, match=f"{name} is set to '1'"):
            set_cuda_environment(ParallelConfig(), deterministic=True)


@pytest.mark.parametrize(
    ("capability", "has_flash", "runs"),
    [((9, 0), False, False), ((9, 0), True, True), ((10, 0), False, True)],
)
def test_a_deterministic_rank_uses_kernels_that_are(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    has_flash: bool,
    runs: bool,
) -> None:
    found = {"transformer_engine", *(["flash_attn"] if has_flash else [])}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in found or None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    asked = RuntimeConfig(device="cuda", deterministic=True)
    try:
        if not runs:
            with pytest.raises(ConfigError, match="attention on this GPU needs flash-attn"):
                select_runtime(asked, local_rank=0)
            return
        runtime = select_runtime(asked, local_rank=0)
        assert torch.are_deterministic_algorithms_enabled()
        here = replace(runtime, kind="cpu")  # megatron-core would look for fused kernels
        assert transformer_config(LLAMA_8B, ParallelConfig(), here).deterministic_mode
    finally:
        torch.use_deterministic_algorithms(mode=False)


def test_a_cpu_needs_nothing_for_determinism_and_delayed_scaling_has_none() -> None:
    runtime = select_runtime(RuntimeConfig(device="cpu", deterministic=True), local_rank=0)
    assert not transformer_config(LLAMA_8B, ParallelConfig(), runtime).deterministic_mode
    with pytest.raises(ValidationError, match=r"needs another fp8\.recipe than 'delayed'"):
        RuntimeConfig(deterministic=True, fp8=fp8(recipe="delayed"))


def test_fp8_on_a_cpu_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.fp8: .* on the CPU\. Leave runtime\.fp8 out"):
        select_runtime(RuntimeConfig(device="cpu", fp8=fp8()), local_rank=0)


@pytest.mark.parametrize(
    ("shape", "recipe", "parallel", "batch", "expected"),
    [
        (LLAMA_8B, "tensorwise", ParallelConfig(tensor=8), BATCH, []),
        (LLAMA_8B, "blockwise", ParallelConfig(tensor=8), BATCH, []),
        (QWEN3_32B, "blockwise", ParallelConfig(tensor=8, sequence=True), BATCH, []),
        (SMOLLM2_135M, "tensorwise", ParallelConfig(tensor=3), BATCH, []),
        (
            SMOLLM2_135M,
            "blockwise",
            ParallelConfig(),
            BATCH,
            ["hidden size 576 / tensor 1 = 576", "of query, key and value 960 / tensor 1", "576"],
        ),
        (
            LLAMA_8B,
            "blockwise",
            ParallelConfig(tensor=8, sequence=True),
            replace(BATCH, seq_length=512),
            ["128 x 8 = 1024 divides", "seq_length 512 / context 1 = 512"],
        ),
        (
            LLAMA_8B,
            "tensorwise",
            ParallelConfig(context=2),
            replace(BATCH, seq_length=4104, align=4),
            ["16 x 1 = 16 divides", "seq_length 4104 / context 2 = 2052"],
        ),
    ],
)
def test_sizes_that_fp8_cannot_multiply_are_named(
    shape: ModelShape,
    recipe: Any,
    parallel: ParallelConfig,
    batch: BatchShape,
    expected: list[str],
) -> None:
    text = " ".join(violations(shape, parallel, [batch], fp8(recipe=recipe)))
    assert bool(text) == bool(expected)
    for part in expected:
        assert part in text


def test_more_layers_in_bf16_than_a_stage_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="9 is more than the 32 layers / pipeline 4 = 8"):
        check_layout(LLAMA_8B, ParallelConfig(pipeline=4), [], fp8(last_layers_bf16=9))
