"""How long a phase trains, by which optimizer and at which learning rate."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from megatron_msm.config.section import Fraction, PositiveInt, Section

# At 1 a moment would never move, and its bias correction divide by zero.
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class DurationConfig(Section):
    """How long a phase trains: exactly one of the three."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the data; the last step is filled up with empty sequences."""
    steps: PositiveInt | None = None
    """Optimizer steps; the data starts again, newly shuffled, as often as needed."""
    tokens: PositiveInt | None = None
    """Processed positions, padding included, rounded up to whole steps."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.epochs, self.steps, self.tokens)) != 1:
            raise ValueError("give exactly one of `epochs`, `steps` and `tokens`")
        return self

    def num_steps(self, tokens_per_step: int) -> int | None:
        """Return the optimizer steps asked for; None when that depends on the data."""
        if self.tokens is not None:
            return -(-self.tokens // tokens_per_step)
        return self.steps


class OptimizerConfig(Section):
    """AdamW. Weight decay is not applied to one-dimensional weights (norms, biases)."""

    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""
    beta1: Decay = 0.9
    """Decay of the first moment."""
    beta2: Decay = 0.95
    """Decay of the second moment."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest global gradient norm; `null` turns clipping off."""
    max_skipped_in_a_row: PositiveInt = 5
    """A step whose loss or gradient is not finite changes no weight and is counted. After so many
    one after the other the run stops and names the rows of the last one."""


class ScheduleConfig(Section):
    """Learning rate over a phase: linear warm-up, then the shape of `kind`."""

    kind: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Shape after the warm-up. `wsd` (warm-up, stable, decay) stays at the peak and falls in a
    straight line at the end."""
    warmup_fraction: Fraction | None = None
    """Share of the phase's steps spent warming up. With none of the three given: 0.05."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """The same in optimizer steps."""
    warmup_tokens: PositiveInt | None = None
    """The same in processed positions, rounded up to whole steps."""
    decay_fraction: Fraction | None = None
    """With `wsd` the share of the steps spent falling. With none of the three given: 0.2."""
    decay_steps: PositiveInt | None = None
    """The same in optimizer steps."""
    decay_tokens: PositiveInt | None = None
    """The same in processed positions, rounded up to whole steps."""
    min_lr_fraction: Fraction = 0.0
    """Learning rate at the end, as a share of the peak; of no meaning for `constant`."""

    @model_validator(mode="after")
    def _one_length_each(self) -> Self:
        warmup = (self.warmup_fraction, self.warmup_steps, self.warmup_tokens)
        decay = (self.decay_fraction, self.decay_steps, self.decay_tokens)
        for name, values in (("warmup", warmup), ("decay", decay)):
            if sum(value is not None for value in values) > 1:
                raise ValueError(
                    f"give at most one of {name}_fraction, {name}_steps, {name}_tokens"
                )
        if self.kind != "wsd" and any(value is not None for value in decay):
            raise ValueError(f"only kind wsd has a decay of its own length; kind is {self.kind}")
        return self


class LossSpikeConfig(Section):
    """Going back past a loss spike, and on without the data that led to it.

    The weights return to the newest interval checkpoint; the training goes on with the step after
    the spike, so the data between is not seen by the weights that remain.
    """

    above_nats: Annotated[float, Field(gt=0)]
    """A step is a spike when its loss exceeds the mean of the steps before by more than this."""
    window_steps: PositiveInt = 50
    """How many steps before; with fewer, and before the first checkpoint, nothing is a spike."""
    max_rollbacks: PositiveInt = 3
    """The run stops at the next spike after so many in the phase."""
