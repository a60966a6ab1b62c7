"""Run a function on several real gloo ranks of this machine."""

import os
import socket
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.spawn import spawn


def run_on_ranks(function: Callable[..., None], world_size: int, *args: Any) -> None:
    """Call `function(*args)` in `world_size` fresh processes with torchrun's environment.

    Raises:
        ProcessRaisedException: A rank failed; the message holds its traceback.
    """
    spawn(_call, args=(function, world_size, free_port(), args), nprocs=world_size)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _call(
    rank: int, function: Callable[..., None], world_size: int, port: int, args: tuple[Any, ...]
) -> None:
    warnings.filterwarnings("ignore")
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    # As many threads as cores over all ranks: more make a step several times slower.
    torch.set_num_threads(max((os.cpu_count() or 1) // world_size, 1))
    function(*args)
