"""What a run shows of itself, and where."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from megatron_msm.config.section import PositiveInt, Section


class WandbConfig(Section):
    """Weights & Biases. The key comes from `wandb login` or WANDB_API_KEY, never from here."""

    project: str
    """The project's name."""
    entity: str | None = None
    """User or team. Left out: the key's own."""
    name: str | None = None
    """The run's name. Left out: the name of the run folder."""
    group: str | None = None
    """Runs that W&B shows together. Left out: none."""
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    """Words to find the run by."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes into the run folder; `wandb sync` uploads it later."""


class ProfileConfig(Section):
    """A torch profiler trace of some steps, in OUT/profile, for Perfetto or chrome://tracing."""

    first_step: PositiveInt = 3
    """First step of the window, counted in the phase from 1; a run that resumes later has none."""
    num_steps: PositiveInt = 2
    """Steps of the window; these are slower."""
    ranks: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Ranks that write a trace."""


class LoggingConfig(Section):
    """What a run shows besides metrics.jsonl, TensorBoard and the progress line."""

    loss_by: tuple[str, ...] = ()
    """Also the loss of parts of the data: `source` for each dataset, or a field of its provenance
    such as `doc_type`, `domain`, `spec_id` for each value. It costs no further forward pass."""
    wandb: WandbConfig | None = None
    """Left out: no Weights & Biases."""
    profile: ProfileConfig | None = None
    """Left out: no trace."""


class ValidationConfig(Section):
    """Loss on held-out datasets while a phase trains. It changes nothing in the training."""

    prefixes: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Datasets that `msm prep` made, each with a loss of its own. Any role is admitted."""
    admit_training_data: bool = False
    """Also datasets that a phase of the run trains on, whose loss says nothing of other data."""
    interval_steps: PositiveInt = 100
    """Optimizer steps between validations; there is one at the end as well."""
    max_batches: PositiveInt | None = None
    """At most so many global batches of each dataset, always the same ones. Left out: all."""
