"""FP8 arithmetic of the linear layers, through Transformer Engine."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from megatron_msm.config.section import PositiveInt, Section

Fp8Recipe = Literal["delayed", "tensorwise", "blockwise", "mxfp8"]
LayerCount = Annotated[int, Field(ge=0)]


class Fp8Config(Section):
    """FP8 for the matrix products of attention projections and MLPs; all else stays as it was.

    Needs a GPU; `msm doctor` says what a machine can run.
    """

    recipe: Fp8Recipe = "tensorwise"
    """How numbers are scaled into FP8's range. `tensorwise`: by the tensor's own largest value.
    `delayed`: by the largest of past steps. `blockwise`: by blocks of 128, follows bf16 closest.
    `mxfp8`: by blocks of 32, Blackwell only."""
    format: Literal["hybrid", "e4m3"] = "hybrid"
    """`hybrid`: e4m3 forward, e5m2 for gradients. `e4m3`: everywhere."""
    first_layers_bf16: LayerCount = 0
    """Layers at the beginning of the model that stay in bf16; not with `delayed`."""
    last_layers_bf16: LayerCount = 0
    """Layers at the end of the model that stay in bf16; not with `delayed`."""
    param_gather: bool = False
    """Keep the weights that are computed with in FP8 and gather them over data parallel ranks so:
    half the memory and traffic. The optimizer's main weights stay fp32."""
    amax_history_steps: PositiveInt = 1024
    """Steps whose largest values `delayed` looks back on."""
    amax: Literal["max", "most_recent"] = "max"
    """Which of them `delayed` scales by."""
    margin: LayerCount = 0
    """Powers of two that `delayed` leaves free above the largest value."""

    @model_validator(mode="after")
    def _settings_of_the_recipe(self) -> Self:
        if self.recipe == "delayed" and (self.first_layers_bf16 or self.last_layers_bf16):
            raise ValueError(
                f"first_layers_bf16 {self.first_layers_bf16} and last_layers_bf16 "
                f"{self.last_layers_bf16} need another recipe than 'delayed', whose history is "
                "kept over all layers at once: use 'tensorwise', or set both to 0"
            )
        # Compared with the defaults: a resolved run file has every field written out.
        of_delayed = [
            name
            for name in ("amax_history_steps", "amax", "margin")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if self.recipe != "delayed" and of_delayed:
            raise ValueError(
                f"{', '.join(of_delayed)}: only recipe 'delayed' has this, found {self.recipe!r}. "
                "Leave it out"
            )
        return self
