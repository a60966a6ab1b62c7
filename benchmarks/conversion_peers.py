r"""Megatron-Bridge and mbridge for benchmarks/convert.py, made to run without a GPU.

    PYTHON benchmarks/conversion_peers.py megatron-bridge|mbridge WORK

PYTHON belongs to an environment of their own, made in November 2026 with Python 3.11:

    pip install --no-deps megatron-bridge==0.3.1 mbridge==0.15.1
    pip install megatron-core==0.16.1 torch transformers==4.57.6 omegaconf einops datasets \
        hydra-core "huggingface_hub<1.0" matplotlib ipython rich six tensorboard wandb

or with Python 3.12:

    pip install --no-deps megatron-bridge==0.6.2
    pip install megatron-core==0.19.2 torch transformers==5.12.1 omegaconf einops datasets \
        hydra-core tensorboard matplotlib ipython

Both need GPU packages at import (Transformer Engine, triton); empty modules stand for them, and
megatron-core's local layer spec for Transformer Engine's. Each step prints one JSON line.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

_ABSENT = (
    *("transformer_engine", "triton", "mamba_ssm", "causal_conv1d", "flash_attn"),
    *("modelopt", "nvidia_resiliency_ext", "megatron.energon", "wandb", "mlflow", "comet_ml"),
)


def _accept(self: object, *args: object, **kwargs: object) -> None:
    """Take whatever a constructor or decorator is given."""


class _Placeholder(type):
    """A class that has every attribute; only looked at, never used."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(name, (), {"__init__": _accept})

    def __or__(cls, other: Any) -> Any:
        return cls

    def __ror__(cls, other: Any) -> Any:
        return cls


class _EmptyModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(name, (), {"__init__": _accept})


class _AbsentPackages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if f"{name}.".startswith(tuple(f"{absent}." for absent in _ABSENT)):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = _EmptyModule(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def start_megatron(
    *, rank: int = 0, store: Any = None, size: int = 1, tensor: int = 1, expert: int = 1
) -> Callable[..., Any]:
    """Join a process group; return the function that makes a CPU layer spec.

    Args:
        rank: Of this process.
        store: Where `size` ranks meet; not needed for one.
        size: Of the group.
        tensor: Tensor parallel ranks.
        expert: Expert parallel ranks.
    """
    # Before the placeholders: megatron-core is to see that Transformer Engine is absent.
    import megatron.core.models.gpt.gpt_layer_specs as specs
    import megatron.core.models.gpt.gpt_model
    import megatron.core.optimizer
    import megatron.core.utils
    import torch
    from megatron.core import parallel_state, tensor_parallel
    from packaging.version import Version
    from torch._C._distributed_c10d import HashStore

    # From 0.19 on layer specs are made at import, of which one asks for this version.
    megatron.core.utils._te_version = Version("2.9.0")
    sys.meta_path.append(_AbsentPackages())
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from megatron_msm.runtime import cpu_redirects

    cpu_redirects.install()
    store = store or HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=tensor,
        expert_model_parallel_size=expert,
        expert_tensor_parallel_size=1,
        create_gloo_process_groups=False,
    )
    tensor_parallel.model_parallel_cuda_manual_seed(1)

    def local_spec(config: Any, *args: object, **kwargs: object) -> Any:
        spec = specs.get_gpt_layer_local_spec(
            num_experts=config.num_moe_experts,
            moe_grouped_gemm=False,
            qk_layernorm=config.qk_layernorm,
            normalization="RMSNorm",
        )
        if config.num_moe_experts is not None:
            # Before experts Transformer Engine's spec has the norm under its own name.
            del spec.submodules.sharded_state_dict_keys_map["pre_mlp_layernorm."]
        return spec

    return local_spec


def build_by_bridge(
    hf: Path, local_spec: Callable[..., Any], *, tensor: int = 1, expert: int = 1
) -> tuple[Any, list[Any]]:
    """Return Megatron-Bridge's bridge of a folder and this rank's model, without weights."""
    import torch
    from megatron.bridge import AutoBridge
    from megatron.core.process_groups_config import ProcessGroupCollection

    bridge = AutoBridge.from_hf_pretrained(str(hf), torch_dtype=torch.bfloat16)
    provider = bridge.to_megatron_provider(load_weights=False)
    for name, value in {
        "transformer_layer_spec": local_spec,
        "tensor_model_parallel_size": tensor,
        "expert_model_parallel_size": expert,
        "expert_tensor_parallel_size": 1,
        "moe_grouped_gemm": False,
        "moe_permute_fusion": False,
        "moe_token_dispatcher_type": "allgather",
        "persist_layer_norm": False,
        "masked_softmax_fusion": False,
        "bias_activation_fusion": False,
        "bias_dropout_fusion": False,
        "apply_rope_fusion": False,
        "gradient_accumulation_fusion": False,
        "use_cpu_initialization": True,
        "perform_initialization": False,
        "params_dtype": torch.bfloat16,
        "bf16": True,
    }.items():
        setattr(provider, name, value)
    provider.finalize()
    provider._pg_collection = ProcessGroupCollection.use_mpu_process_groups()
    return bridge, [provider.provide().to(torch.bfloat16)]


def megatron_bridge(work: Path) -> None:
    """Import into a model, and export it."""
    local_spec = start_megatron()
    with _step("import"):
        bridge, model = build_by_bridge(work / "hf", local_spec)
        bridge.load_hf_weights(model)
    with _step("export"):
        bridge.save_hf_pretrained(model, str(work / "bridge"))
        os.sync()


def mbridge(work: Path) -> None:
    """Import into a model, and export it."""
    local_spec = start_megatron()
    from mbridge import AutoBridge
    from mbridge.core import llm_bridge
    from mbridge.core.bridge import Bridge

    llm_bridge.get_gpt_decoder_block_spec = local_spec
    named = Bridge._weight_name_mapping_mcore_to_hf

    def with_names_of_fused_norms(self: Any, name: str) -> Any:
        for local, fused in (
            (".input_layernorm.", ".self_attention.linear_qkv.layer_norm_"),
            (".pre_mlp_layernorm.", ".mlp.linear_fc1.layer_norm_"),
        ):
            name = name.replace(local, fused)
        return named(self, name)

    Bridge._weight_name_mapping_mcore_to_hf = with_names_of_fused_norms
    with _step("import"):
        bridge = AutoBridge.from_pretrained(str(work / "hf"))
        bridge.config.persist_layer_norm = False
        bridge.config.use_cpu_initialization = True
        model = bridge.get_model(weight_path=str(work / "hf"))
    with _step("export"):
        bridge.save_weights(model, str(work / "mbridge"))
        os.sync()


class _step:
    """Print time and peak memory of a block."""

    before_kib: ClassVar[int]
    """Resident before the import."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        if self.name == "import":
            _step.before_kib = _status_kib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        self.cpu_before = sum(os.times()[:4])
        self.started = time.perf_counter()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None:
            seconds = time.perf_counter() - self.started
            mib = (_status_kib("VmHWM") - _step.before_kib) / 1024
            cpu = sum(os.times()[:4]) - self.cpu_before
            row = {"step": self.name, "seconds": seconds, "cpu": cpu, "mib": mib}
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    {"megatron-bridge": megatron_bridge, "mbridge": mbridge}[sys.argv[1]](Path(sys.argv[2]))
