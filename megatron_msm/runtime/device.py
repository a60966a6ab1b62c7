"""Which machine a rank runs on: CUDA with NCCL, or the CPU with gloo."""

import ctypes
import importlib.util
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version

import torch

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.precision import Fp8Config
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.errors import ConfigError
from megatron_msm.runtime.determinism import (
    set_deterministic_environment,
    use_deterministic_kernels,
)
from megatron_msm.runtime.fp8 import Machine, Version, obstacles
from megatron_msm.runtime.store import connect_to_store, key_of_start


@dataclass(frozen=True)
class Runtime:
    """The device of this rank and what follows from it."""

    kind: str
    """`cuda` or `cpu`."""
    device: torch.device
    backend: str
    """torch.distributed backend: `nccl` or `gloo`."""
    params_dtype: torch.dtype
    fp8: Fp8Config | None = None
    is_deterministic: bool = False
    """megatron-core and torch use kernels that give the same bits each time."""

    @property
    def has_fp8_weights(self) -> bool:
        """True when the weights that are computed with are kept in FP8."""
        return self.fp8 is not None and self.fp8.param_gather

    @property
    def is_cuda(self) -> bool:
        """True when kernels run on a GPU."""
        return self.kind == "cuda"


HAS_FUSED_WEIGHT_GRADIENT = importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None
"""True when this Python has NVIDIA apex's kernel of that name."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def set_cuda_environment(parallel: ParallelConfig, *, deterministic: bool = False) -> None:
    """Set what CUDA and torch's allocator read when they start, unless the user has.

    Called before the first use of a GPU; without one it changes nothing.

    Raises:
        ConfigError: The user has set a variable to what `deterministic` does not allow.
    """
    if deterministic:
        set_deterministic_environment()
    if parallel.tensor > 1 or parallel.context > 1:
        # One queue to the GPU keeps kernels in the order of their launch, which megatron-core's
        # overlap of messages and matrix products counts on (tensor_parallel/layers.py:526).
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    # Blocks that grow instead of fragmenting: lengths of documents differ from step to step.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


def select_runtime(config: RuntimeConfig, *, local_rank: int) -> Runtime:
    """Return the runtime that the configuration asks for; `auto` takes CUDA when it is there.

    Raises:
        ConfigError: CUDA is asked for and this machine has none, or fewer GPUs than ranks, or no
            Transformer Engine; or FP8 or determinism is, and something that it needs is missing.
    """
    kind = config.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = DTYPES[config.dtype]
    if config.fp8 is not None:
        _check_fp8(config.fp8, kind)
    if kind == "cpu":
        keep_freed_memory()
        return Runtime("cpu", torch.device("cpu"), "gloo", dtype)
    index = _gpu_of_rank(local_rank)
    if config.deterministic:
        use_deterministic_kernels()
    device = torch.device("cuda", index)
    return Runtime("cuda", device, "nccl", dtype, config.fp8, config.deterministic)


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors, as torch's allocator does on a GPU.

    By default it returns each to the system when it is freed, and the next one of that size costs
    a page fault every 4 KiB: 0.3 of 5.8 s of a training step of 135M weights. Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    no_maps, trim_threshold, largest = -4, -1, 2**31 - 1
    c_library = ctypes.CDLL(None)
    c_library.mallopt(no_maps, 0)
    c_library.mallopt(trim_threshold, largest)


def _gpu_of_rank(local_rank: int) -> int:
    """Return the number of the rank's GPU among those that it sees."""
    if not torch.cuda.is_available():
        raise ConfigError(
            "runtime.device: 'cuda' was asked for, but torch sees no GPU on this machine. "
            "Use runtime.device=cpu, or run `msm doctor` to see what is missing."
        )
    if importlib.util.find_spec("transformer_engine") is None:
        raise ConfigError(
            "runtime.device: ranks on GPUs need Transformer Engine, which is not installed. "
            "Install it with: pip install 'megatron-msm[gpu]'"
        )
    num_visible = torch.cuda.device_count()
    if num_visible == 1 and "CUDA_VISIBLE_DEVICES" in os.environ:
        return 0  # SLURM's --gpus-per-task=1 shows each rank its own; see `claim_gpu`
    if local_rank >= num_visible:
        raise ConfigError(
            f"runtime.device: local rank {local_rank} has no GPU, the machine has "
            f"{num_visible}. Lower the parallel sizes."
        )
    return local_rank


def claim_gpu(device: torch.device) -> None:
    """Say in the store that the ranks meet at that this GPU is taken.

    Raises:
        ConfigError: Another rank has said so.
    """
    uuid = torch.cuda.get_device_properties(device).uuid
    if connect_to_store().add(key_of_start(f"gpu/{uuid}"), 1) > 1:
        raise ConfigError(
            f"runtime.device: two ranks have the same GPU ({uuid}; CUDA_VISIBLE_DEVICES="
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}). Show each rank its own, or "
            "all of a node's GPUs to each."
        )


def _check_fp8(fp8: Fp8Config, kind: str) -> None:
    if kind == "cpu":
        found = ["it runs on GPUs only, and this rank runs on the CPU."]
    else:
        found = list(obstacles(fp8, this_machine()))
    if found:
        raise ConfigError(
            f"runtime.fp8: {' '.join(found)} Leave runtime.fp8 out to train in bf16, or run "
            "`msm doctor` to see which recipes this machine can run."
        )


def this_machine() -> Machine:
    """Return the facts of this machine that decide about FP8."""
    has_gpu = torch.cuda.is_available()
    has_engine = importlib.util.find_spec("transformer_engine") is not None
    return Machine(
        gpu=torch.cuda.get_device_name() if has_gpu else None,
        compute_capability=torch.cuda.get_device_capability() if has_gpu else None,
        cuda=_version(torch.version.cuda) if torch.version.cuda else None,
        transformer_engine=_version(version("transformer_engine")) if has_engine else None,
    )


def _version(text: str) -> Version:
    major, minor, *_ = text.split(".")
    return int(major), int(minor)
