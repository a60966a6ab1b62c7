"""Run a function on several real ranks of this machine: gloo on its CPU, or NCCL on its GPUs."""

import os
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from megatron_msm.config.runtime import RuntimeConfig


@dataclass(frozen=True)
class Device:
    """What the ranks of a layout test run on."""

    kind: Literal["cpu", "cuda"]
    dtype: Literal["fp32", "bf16"]
    relative: float
    """How near numbers come to those of plain PyTorch in float32 on the CPU, as a share."""

    @property
    def config(self) -> RuntimeConfig:
        """The same in a run file's words."""
        return RuntimeConfig(device=self.kind, dtype=self.dtype)


CPU = Device("cpu", "fp32", 1e-4)
# Transformer Engine's attention over packed documents is there in bf16 alone. How near it comes
# has not been measured: no machine with two GPUs has run these tests yet.
CUDA = Device("cuda", "bf16", 0.05)


def run_on_ranks(
    function: Callable[..., None], world_size: int, *args: Any, device: Device = CPU
) -> None:
    """Call `function(*args)` in `world_size` fresh processes with torchrun's environment.

    Raises:
        ProcessRaisedException: A rank failed; the message holds its traceback.
    """
    if device.kind == "cuda" and torch.cuda.device_count() < world_size:
        pytest.skip(f"needs {world_size} GPUs, this machine has {torch.cuda.device_count()}")
    spawn(_call, args=(function, world_size, free_port(), device, args), nprocs=world_size)


def device_of_rank() -> Device:
    """Return what `run_on_ranks` was given, in one of its processes."""
    return {"cpu": CPU, "cuda": CUDA}[os.environ["MSM_TEST_DEVICE"]]


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _call(
    rank: int,
    function: Callable[..., None],
    world_size: int,
    port: int,
    device: Device,
    args: tuple[Any, ...],
) -> None:
    warnings.filterwarnings("ignore")
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        MSM_TEST_DEVICE=device.kind,
    )
    # As many threads as cores over all ranks: more make a step several times slower.
    torch.set_num_threads(max((os.cpu_count() or 1) // world_size, 1))
    function(*args)
