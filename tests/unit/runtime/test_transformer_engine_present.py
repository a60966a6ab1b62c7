"""What goes otherwise where Transformer Engine is installed; emulated, since it needs a GPU."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_msm.errors import ConfigError
from megatron_msm.models.layers.experts import move_to
from megatron_msm.runtime import device
from megatron_msm.runtime.extra_state import is_extra_state
from megatron_msm.train.checkpoints.checkpoint import chunk_name, sharded_state

# Keys as megatron-core 0.16.1 names them with Transformer Engine's grouped experts.
WEIGHTS = [
    "decoder.layers.0.mlp.experts.linear_fc1.weight0",
    "decoder.layers.0.mlp.experts.linear_fc1.weight11",
    "decoder.layers.0.self_attention.linear_qkv.weight",
]
RECORDS = [
    "decoder.layers.0.mlp.experts.linear_fc1._extra_state",
    "decoder.layers.0.mlp.experts.linear_fc1._extra_state1",
    "decoder.layers.0.mlp.experts.linear_fc2._extra_state11",
]


def test_records_of_scales_are_not_in_checkpoints() -> None:
    every = {key: object() for key in WEIGHTS + RECORDS}
    chunk = SimpleNamespace(sharded_state_dict=lambda metadata: every)
    assert list(sharded_state([chunk], None, is_loading=False)[chunk_name(0)]) == WEIGHTS
    assert [key for key in every if is_extra_state(key)] == RECORDS


PROGRAM = """
import os
import torch
from megatron.core import optimizer as megatron_optimizer
from megatron.core.optimizer import clip_grads, distrib_optimizer
from megatron.core.transformer.moe import moe_utils

def kernel(*args, **kwargs):
    raise AssertionError("a GPU's kernel was called on the CPU")

# What `import transformer_engine` leaves in these modules (optimizer/__init__.py:11,
# distrib_optimizer.py:21, clip_grads.py:10, moe_utils.py:34).
megatron_optimizer.Adam = distrib_optimizer.Adam = kernel
megatron_optimizer.USING_PYTORCH_OPTIMIZER = False
distrib_optimizer.HAVE_APEX_OR_TE = distrib_optimizer.USING_TE_OPTIMIZER = True
clip_grads.multi_tensor_applier = kernel
clip_grads.l2_norm_impl = clip_grads.multi_tensor_scale_impl = kernel
moe_utils.te_general_gemm = kernel

import numpy as np
from megatron_msm.config.memory import MemoryConfig
from megatron_msm.config.optimization import OptimizerConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.data.batch import collate
from megatron_msm.data.packed_dataset import Pack
from megatron_msm.models.build import build_model
from megatron_msm.models.shape import ExpertShape
from megatron_msm.runtime.device import select_runtime
from megatron_msm.runtime.process_groups import RankInfo, initialize, shut_down
from megatron_msm.train.steps.step import build_optimizer, train_step, wrap_data_parallel
from tests.unit.models.shapes import tiny_shape

os.environ["MASTER_PORT"] = "0"
runtime = select_runtime(RuntimeConfig(device="cpu", dtype="fp32"), local_rank=0)
ranks = initialize(RankInfo(0, 0, 1), runtime, ParallelConfig(), seed=1, timeout_min=1)
experts = ExpertShape(
    num_experts=4, experts_per_token=2, ffn_hidden_size=16, normalize_weights=True
)
shape = tiny_shape().model_copy(update={"experts": experts})
chunks = build_model(shape, ParallelConfig(), runtime, ranks)
for weight in chunks[0].parameters():
    torch.nn.init.constant_(weight, 1.0) if weight.dim() == 1 else torch.nn.init.normal_(weight)
wrapped = wrap_data_parallel(chunks, runtime)
optimizer = build_optimizer(wrapped, OptimizerConfig(lr=1e-3, clip_grad_norm=1e-3), runtime)
ids = np.arange(8)
pack = Pack(tokens=ids, labels=ids, loss_mask=ids < 8, segment_lengths=np.array([8]))
result = train_step(
    wrapped, optimizer, iter([collate([pack], runtime.device)]),
    num_micro_batches=1, tokens_per_micro_batch=8, lr=1e-3, ranks=ranks,
)
assert result.is_finite and result.grad_norm > 1e-3
print(type(optimizer.chained_optimizers[0].optimizer).__name__)
shut_down()
"""


def test_a_rank_on_the_cpu_calls_none_of_its_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "GroupStepAdamW"


class _Weight:
    """Stands for a parameter on a device that is not there."""

    def __init__(self, kind: str) -> None:
        self.device = SimpleNamespace(type=kind)
        self.data = SimpleNamespace(to=lambda device: f"on {device}")


def test_weights_that_were_made_elsewhere_are_moved() -> None:
    router, expert = _Weight("cpu"), _Weight("cuda")
    kept = expert.data
    model: Any = SimpleNamespace(parameters=lambda: [router, expert])
    move_to(model, torch.device("cuda", 1))
    assert router.data == "on cuda:1"
    assert expert.data is kept


class _Store:
    """Stands for the store that ranks meet at."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, key: str, amount: int) -> int:
        self.counts[key] = self.counts.get(key, 0) + amount
        return self.counts[key]


def show_gpus(patch: pytest.MonkeyPatch, number: int, visible: str | None) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "device_count", lambda: number)
    patch.setattr(importlib.util, "find_spec", lambda name: object())
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        patch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_each_rank_takes_its_gpu_or_the_only_one_that_it_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from megatron_msm.config.runtime import RuntimeConfig

    def index(local_rank: int) -> int | None:
        return device.select_runtime(
            RuntimeConfig(device="cuda"), local_rank=local_rank
        ).device.index

    show_gpus(monkeypatch, 8, None)
    assert index(3) == 3
    show_gpus(monkeypatch, 1, "GPU-4f6")
    assert index(3) == 0
    for number, visible in ((1, None), (2, "0,1")):
        show_gpus(monkeypatch, number, visible)
        with pytest.raises(ConfigError, match=f"local rank 3 has no GPU, the machine has {number}"):
            index(3)


def test_two_ranks_with_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = _Store()
    uuids = iter(["GPU-a", "GPU-b", "GPU-a", "GPU-a"])
    monkeypatch.setattr(device, "connect_to_store", lambda: store)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=next(uuids))
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    device.claim_gpu(torch.device("cuda", 0))
    device.claim_gpu(torch.device("cuda", 0))
    with pytest.raises(ConfigError, match=r"same GPU \(GPU-a; CUDA_VISIBLE_DEVICES=0\)"):
        device.claim_gpu(torch.device("cuda", 0))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    device.claim_gpu(torch.device("cuda", 0))
