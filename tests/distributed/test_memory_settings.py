"""Recomputation and chunks save memory and change nothing else."""

from typing import Any

import pytest
import torch

from megatron_msm.config.memory import MemoryConfig, RecomputeModule
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.convert.importing import import_hf
from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import iteration_folder
from megatron_msm.models.layers.recompute import recompute_settings
from megatron_msm.models.shape import ExpertShape
from megatron_msm.models.sizes.recompute_sizes import check_recompute
from megatron_msm.plan.estimate import recompute_choices
from megatron_msm.runtime.device import Runtime, select_runtime
from megatron_msm.train.steps.offload import offload_settings
from tests.distributed.memory_worker import LORA, SETTINGS, save_gradients
from tests.distributed.ranks import run_on_ranks
from tests.tiny import write_tiny_llama
from tests.unit.models.shapes import LLAMA_8B

CPU = select_runtime(RuntimeConfig(device="cpu"), local_rank=0)
EXPERTS = ExpertShape(
    num_experts=8, experts_per_token=2, ffn_hidden_size=64, normalize_weights=True
)
CUDA = Runtime("cuda", torch.device("cuda", 0), "nccl", torch.bfloat16)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the loss and gradients of every setting, on rank 0 of two."""
    sizes: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    folder = write_tiny_llama(tmp_path_factory.mktemp("hf"), **sizes)
    base, out = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("out")
    import_hf(folder, base)
    run_on_ranks(save_gradients, 2, iteration_folder(base, 0), out)
    loaded: dict[str, dict[str, Any]] = torch.load(out / "rank_0.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize("adapters", LORA)
@pytest.mark.parametrize("setting", SETTINGS)
def test_loss_and_every_gradient_are_the_plain_ones(
    found: dict[str, dict[str, Any]], setting: str, adapters: str
) -> None:
    result, plain = found[f"{setting} {adapters}"], found[f"plain {adapters}"]
    assert result.keys() == plain.keys()
    assert len(result) > 20
    for name, value in plain.items():
        torch.testing.assert_close(result[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_recomputation_in_megatron_cores_terms() -> None:
    assert recompute_settings(MemoryConfig(), CUDA) == {}
    assert recompute_settings(MemoryConfig(recompute="full", recompute_layers=4), CUDA) == {
        "recompute_granularity": "full",
        "recompute_method": "uniform",
        "recompute_num_layers": 4,
    }
    norms = MemoryConfig(recompute="selective", recompute_modules=("layernorm", "moe"))
    assert recompute_settings(norms, CUDA)["recompute_modules"] == ["layernorm", "moe"]
    with pytest.raises(ConfigError, match=r"recompute_modules: layernorm needs a GPU"):
        recompute_settings(norms, CPU)


@pytest.mark.parametrize(
    ("experts", "module", "possible"),
    [
        (None, "layernorm", "core_attn, mlp"),
        (None, "moe_act", "core_attn, mlp"),
        (EXPERTS, "mlp", "core_attn, layernorm, moe, moe_act"),
    ],
)
def test_parts_that_would_save_nothing_are_refused_and_not_planned(
    experts: ExpertShape | None, module: RecomputeModule, possible: str
) -> None:
    shape = LLAMA_8B.model_copy(update={"experts": experts})
    memory = MemoryConfig(recompute="selective", recompute_modules=("core_attn", module))
    with pytest.raises(ConfigError, match=f"{module} of a .* save nothing. Use some of {possible}"):
        check_recompute(shape, memory)
    for choice in recompute_choices(shape, MemoryConfig()).values():
        check_recompute(shape, choice)
    check_recompute(shape, MemoryConfig(recompute_modules=(module,)))


def test_offloading_the_optimizer_in_megatron_cores_terms() -> None:
    assert offload_settings(0.0, CPU) == {}
    settings = offload_settings(0.25, CUDA)
    assert settings["optimizer_offload_fraction"] == 0.25
    assert settings["optimizer_cpu_offload"]
    with pytest.raises(ConfigError, match=r"optimizer_offload: 0.25.*CPU"):
        offload_settings(0.25, CPU)
