"""What is kept in memory during a step, and what is computed again or kept elsewhere."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from megatron_msm.config.section import Fraction, PositiveInt, Section

RecomputeModule = Literal["core_attn", "layernorm", "mlp", "moe_act", "moe"]


class MemoryConfig(Section):
    """Memory against time. None of it changes what is computed."""

    recompute: Literal["none", "selective", "full"] = "none"
    """Activations that the backward pass computes again: none of them; those of
    `recompute_modules`; all but each layer's input."""
    recompute_modules: Annotated[tuple[RecomputeModule, ...], Field(min_length=1)] = ("core_attn",)
    """For `selective`: parts of a layer, by megatron-core's names. Flash attention keeps little, so
    on a GPU `core_attn` saves little; `mlp` or `moe` do. `layernorm` is the norm before experts;
    any other is a part of the projection behind it."""
    recompute_layers: PositiveInt = 1
    """For `full`: layers between two kept inputs."""
    loss_chunk_tokens: PositiveInt | None = 1024
    """Tokens whose logits exist at once in the loss, of those that have a loss. `null` computes all
    logits of a micro batch together, masked tokens included."""
    optimizer_offload: Fraction = 0.0
    """Share of the optimizer's state and update on the CPU; GPUs only. Expect a step to take about
    twice as long at a quarter and four times at 1."""

    @model_validator(mode="after")
    def _modules_differ(self) -> Self:
        if len(set(self.recompute_modules)) < len(self.recompute_modules):
            raise ValueError(f"name each module once, found {list(self.recompute_modules)}")
        return self
