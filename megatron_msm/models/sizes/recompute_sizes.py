"""Which parts of a layer a model has to compute again. No torch."""

from megatron_msm.config.memory import MemoryConfig
from megatron_msm.errors import ConfigError
from megatron_msm.models.shape import ModelShape

_OF_DENSE, _OF_EXPERTS = {"mlp"}, {"layernorm", "moe_act", "moe"}


def check_recompute(shape: ModelShape, memory: MemoryConfig) -> None:
    """Refuse parts that the model does not have by themselves: megatron-core would do nothing.

    On a GPU a norm is a part of the projection behind it, but for the one before experts.

    Raises:
        ConfigError: Such a part is asked for.

    Source: megatron-core 0.16.1, transformer/transformer_layer.py:379.
    """
    if memory.recompute != "selective":
        return
    kind, others = ("dense", _OF_EXPERTS) if shape.experts is None else ("MoE", _OF_DENSE)
    without = sorted(others.intersection(memory.recompute_modules))
    if without:
        possible = sorted({"core_attn", *_OF_DENSE, *_OF_EXPERTS} - others)
        raise ConfigError(
            f"memory.recompute_modules: {', '.join(without)} of a {kind} model cannot be computed "
            f"again by itself, so it would save nothing. Use some of {', '.join(possible)}, or "
            "memory.recompute=full."
        )
