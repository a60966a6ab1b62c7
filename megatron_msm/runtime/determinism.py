"""The same bits from the same step on a GPU: what has to be set, and what has to be there.

On a CPU nothing is needed. The cost on a GPU has not been measured.
"""

import importlib.util
import os

import torch

from megatron_msm.errors import ConfigError

_NEEDED: dict[str, tuple[str, ...]] = {
    # Attention's backward pass adds up in a fixed order. Source: Transformer Engine 2.20,
    # pytorch/attention/dot_product_attention/dot_product_attention.py:950.
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": ("0",),
    # cuBLAS picks the same algorithm each time. Source: torch.use_deterministic_algorithms.
    "CUBLAS_WORKSPACE_CONFIG": (":4096:8", ":16:8"),
    # NCCL adds up ranks in the same order. Source: Megatron-LM, training/arguments.py.
    "NCCL_ALGO": ("Ring", "Tree", "CollnetDirect", "CollnetChain", "^NVLS"),
}


def set_deterministic_environment() -> None:
    """Set what CUDA's libraries read when they start; called before the first use of a GPU.

    Raises:
        ConfigError: The user has set a variable to a value that does not allow it.
    """
    for name, values in _NEEDED.items():
        found = os.environ.setdefault(name, values[0])
        if found not in values:
            raise ConfigError(
                f"runtime.deterministic: {name} is set to {found!r}, and {' or '.join(values)} is "
                "needed. Leave the variable out, or runtime.deterministic."
            )


def use_deterministic_kernels() -> None:
    """Make torch use kernels that give the same bits, and raise where it has none.

    Raises:
        ConfigError: No kernel for attention over packed documents allows it on this GPU.
    """
    # cuDNN's needs capability 9.0, and there 128 GiB of work space for long documents.
    # Source: Transformer Engine 2.20, dot_product_attention/utils.py:1775-1815.
    has_flash = any(importlib.util.find_spec(name) for name in ("flash_attn", "flash_attn_3"))
    if torch.cuda.get_device_capability() < (10, 0) and not has_flash:
        raise ConfigError(
            "runtime.deterministic: attention on this GPU needs flash-attn, which is not "
            "installed: pip install flash-attn. Or leave runtime.deterministic out."
        )
    torch.use_deterministic_algorithms(mode=True)
    # Weights and buffers that are written before they are read need no filling.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
