"""A GPU emulated on a CPU, for running the project's CUDA path where there is none.

    real       torch, megatron-core, Transformer Engine's Python classes, the project
    emulated   torch.cuda's answers (`gpu.py`), NCCL (`messages.py`: gloo), Transformer Engine's
               compiled extension (`extension.py`, and in torch what its kernels compute: `kernels`)

It finds wrong arguments, missing keys, wrong marks and lost updates. It says nothing of speed,
memory, overlap or the numerics of real kernels, and what fails may be the emulation's own fault.
"""
