"""Which machine a rank runs on: CUDA with NCCL, or the CPU with gloo."""

from dataclasses import dataclass

import torch

from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.errors import ConfigError


@dataclass(frozen=True)
class Runtime:
    """The device of this rank and what follows from it."""

    kind: str
    """`cuda` or `cpu`."""
    device: torch.device
    backend: str
    """torch.distributed backend: `nccl` or `gloo`."""
    params_dtype: torch.dtype

    @property
    def is_cuda(self) -> bool:
        """True when kernels run on a GPU."""
        return self.kind == "cuda"


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def select_runtime(config: RuntimeConfig, *, local_rank: int) -> Runtime:
    """Return the runtime that the configuration asks for; `auto` takes CUDA when it is there.

    Raises:
        ConfigError: CUDA is asked for and this machine has none, or fewer GPUs than ranks.
    """
    kind = config.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = DTYPES[config.dtype]
    if kind == "cpu":
        return Runtime("cpu", torch.device("cpu"), "gloo", dtype)
    if not torch.cuda.is_available():
        raise ConfigError(
            "runtime.device: 'cuda' was asked for, but torch sees no GPU on this machine. "
            "Use runtime.device=cpu, or run `msm doctor` to see what is missing."
        )
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"runtime.device: local rank {local_rank} has no GPU, the machine has "
            f"{torch.cuda.device_count()}. Lower the parallel sizes."
        )
    return Runtime("cuda", torch.device("cuda", local_rank), "nccl", dtype)
