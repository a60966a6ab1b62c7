"""How long a phase trains, by which optimizer and at which learning rate."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from megatron_msm.config.section import Fraction, PositiveInt, Section


class DurationConfig(Section):
    """How long a phase trains: exactly one of the two."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the data; the last step is filled up with empty sequences."""
    steps: PositiveInt | None = None
    """Optimizer steps; the data starts again, newly shuffled, as often as needed."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of `epochs` and `steps`")
        return self


class OptimizerConfig(Section):
    """AdamW. Weight decay is not applied to one-dimensional weights (norms, biases)."""

    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""
    beta1: Fraction = 0.9
    """Decay of the first moment."""
    beta2: Fraction = 0.95
    """Decay of the second moment."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest global gradient norm; `null` turns clipping off."""


class ScheduleConfig(Section):
    """Learning rate over a phase: linear warm-up, then decay to `min_lr_fraction` of the peak."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape after the warm-up."""
    warmup_fraction: Fraction = 0.05
    """Share of the phase's steps spent warming up."""
    min_lr_fraction: Fraction = 0.0
    """Learning rate at the end, as a share of the peak."""
