"""Puts the emulated GPU in place as Python starts, in each process with CUDA_ON_CPU set."""

import os

if os.environ.get("CUDA_ON_CPU"):
    from tests.cuda_on_cpu.emulated.install import install

    install(os.environ["CUDA_ON_CPU"])
