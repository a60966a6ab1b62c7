"""Puts the parts of the emulation in place, once for a process."""

import os

from tests.cuda_on_cpu.emulated import extension, gpu, messages


def install(name: str) -> None:
    """Let this process see emulated GPUs.

    Args:
        name: Which GPU, a key of `gpu.GPUS`: "H100".
    """
    # Nothing is compiled here: torch.compile would look for a real GPU.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    gpu.install(gpu.GPUS[name])
    messages.install()
    extension.install()
