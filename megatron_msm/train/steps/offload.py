"""The optimizer on the CPU while the model is on a GPU, in megatron-core's terms."""

from collections.abc import Mapping

from megatron_msm.errors import ConfigError
from megatron_msm.runtime.device import Runtime


def offload_settings(share: float, runtime: Runtime) -> Mapping[str, bool | float]:
    """Return the fields of megatron-core's OptimizerConfig that move the optimizer to the CPU.

    Args:
        share: Part of the optimizer's state and update; 0 keeps all on the GPU.
        runtime: What the ranks run on.

    Raises:
        ConfigError: There is no GPU to move it from.

    Source: megatron-core 0.16.1, optimizer/__init__.py:306; Megatron-LM's arguments.py asks for the
    precision-aware optimizer with it, whose code path the hybrid optimizer shares.
    """
    if share == 0.0:
        return {}
    if not runtime.is_cuda:
        raise ConfigError(
            f"memory.optimizer_offload: {share} was asked for, but the ranks run on the CPU, where "
            "the optimizer is already. Set it to 0."
        )
    return {
        "optimizer_cpu_offload": True,
        "optimizer_offload_fraction": share,
        "overlap_cpu_optimizer_d2h_h2d": True,
        "use_precision_aware_optimizer": True,
    }
