"""Activation recomputation in megatron-core's terms."""

from collections.abc import Mapping

from megatron_msm.config.memory import MemoryConfig
from megatron_msm.errors import ConfigError
from megatron_msm.runtime.device import Runtime

# megatron-core recomputes these with a class that asks Transformer Engine for its FP8 state
# (tensor_parallel/random.py:589, CheckpointWithoutOutput).
_NEEDS_TRANSFORMER_ENGINE = {"layernorm", "moe_act"}


def recompute_settings(memory: MemoryConfig, runtime: Runtime) -> Mapping[str, object]:
    """Return the fields of TransformerConfig that say what the backward pass computes again.

    Raises:
        ConfigError: A module cannot be recomputed on the CPU.

    Source: megatron-core 0.16.1, transformer/transformer_config.py `recompute_granularity`.
    """
    if memory.recompute == "none":
        return {}
    if memory.recompute == "selective":
        unsuited = _NEEDS_TRANSFORMER_ENGINE.intersection(memory.recompute_modules)
        if unsuited and not runtime.is_cuda:
            raise ConfigError(
                f"memory.recompute_modules: {', '.join(sorted(unsuited))} needs a GPU and "
                "Transformer Engine to be recomputed. Leave it out, or use memory.recompute=full."
            )
        return {
            "recompute_granularity": "selective",
            "recompute_modules": list(memory.recompute_modules),
        }
    return {
        "recompute_granularity": "full",
        "recompute_method": "uniform",
        "recompute_num_layers": memory.recompute_layers,
    }
