"""The typed content of a RUN.yaml: one model, one layout, and phases trained one after the other.

Each field's text says meaning, unit and special values. Unknown keys are refused. What can be
derived (data parallel size, steps, accumulation) is computed, never written down twice.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused, field texts kept for the docs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelConfig(Section):
    """Where the weights come from."""

    checkpoint: Path
    """Megatron checkpoint to start from, as `msm convert import` writes it."""


class RuntimeConfig(Section):
    """What the ranks run on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA when torch sees a GPU."""
    dtype: Literal["fp32", "bf16"] = "bf16"
    """Type of weights and activations. Gradients, optimizer state and main weights are fp32."""
    threads_per_rank: PositiveInt | None = None
    """CPU threads of each rank. Left out: the machine's cores divided by its ranks."""
    timeout_min: Annotated[float, Field(gt=0)] = 30.0
    """Minutes that a collective waits for a silent rank before the run fails."""


class ParallelConfig(Section):
    """How the model and the batch are split over ranks."""

    tensor: PositiveInt = 1
    """Tensor parallel size; divides the attention heads and the key/value heads."""
    pipeline: PositiveInt = 1
    """Pipeline parallel size; divides the layers."""
    data: PositiveInt = 1
    """Data parallel size: copies of the model, each with its share of the global batch."""

    @property
    def world_size(self) -> int:
        """Number of ranks that the layout needs."""
        return self.tensor * self.pipeline * self.data


class PackingConfig(Section):
    """How documents are put into packed sequences."""

    strategy: Literal["best-fit", "first-fit-shuffle", "concatenate"] = "best-fit"
    """`best-fit` and `first-fit-shuffle` cut only documents that are longer than a sequence;
    `concatenate` cuts wherever a sequence ends, as Megatron's pretraining does."""
    max_documents: PositiveInt | None = None
    """Most documents of one packed sequence. Left out: no limit."""
    align: PositiveInt = 1
    """Each document is padded to a multiple of this many positions; context and sequence
    parallelism and FP8 need it."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides which documents share a sequence. Not the run's seed, so that runs with different
    seeds can share a plan stored by `msm prep pack`; they visit its sequences in another order."""


class SourceConfig(Section):
    """One dataset of a blend, and how much of it: exactly one of the four amounts."""

    prefix: Path
    """A dataset that `msm prep` made (a path without .bin)."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of the packed sequences, relative to the other sources' weights."""
    tokens: PositiveInt | None = None
    """Tokens for each epoch of the phase, in whole rows; of documents the last row is cut."""
    rows: PositiveInt | None = None
    """Rows for each epoch of the phase."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the dataset for each epoch of the phase."""

    @model_validator(mode="after")
    def _exactly_one_amount(self) -> Self:
        if sum(value is not None for value in self.amounts.values()) != 1:
            raise ValueError(f"source {self.prefix}: give exactly one of {', '.join(self.amounts)}")
        return self

    @property
    def amounts(self) -> dict[str, float | None]:
        """The four ways to say how much."""
        return {
            "weight": self.weight,
            "tokens": self.tokens,
            "rows": self.rows,
            "epochs": self.epochs,
        }


Role = Literal["train", "dev", "test", "pilot"]


class DataConfig(Section):
    """What a phase trains on: either `prefixes` or `sources`."""

    prefixes: tuple[Path, ...] = ()
    """Datasets that `msm prep` made (paths without .bin); an epoch is one pass over all of them."""
    sources: tuple[SourceConfig, ...] = ()
    """A blend: datasets with how much of each. Nothing of a source is drawn twice before all of it
    was drawn."""
    packing: PackingConfig = PackingConfig()
    roles: Annotated[tuple[Role, ...], Field(min_length=1)] = ("train",)
    """Roles that rows may have; a dataset with any other is refused. Rows without a role are for
    training."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.prefixes) == bool(self.sources):
            raise ValueError("give either `prefixes` or `sources`, with at least one dataset")
        paths = [source.prefix for source in self.all_sources]
        if len(set(paths)) < len(paths):
            raise ValueError(f"each dataset may be named once, found {[str(p) for p in paths]}")
        weighted = sum(source.weight is not None for source in self.sources)
        if 0 < weighted < len(self.sources):
            raise ValueError(
                "give either every source a `weight` or none: a share and a count cannot be added"
            )
        return self

    @property
    def all_sources(self) -> tuple[SourceConfig, ...]:
        """The sources; of `prefixes` each once an epoch."""
        return self.sources or tuple(SourceConfig(prefix=p, epochs=1.0) for p in self.prefixes)


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


class CheckpointConfig(Section):
    """When a phase saves. It always saves at its end."""

    save_interval_steps: PositiveInt = 100
    """Optimizer steps between checkpoints."""
    keep_last: PositiveInt = 2
    """Older checkpoints of the phase than this many are removed."""


class PhaseConfig(Section):
    """One training phase with its own data, length, batch, schedule and checkpoint folder."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Names the checkpoint folder: `midtrain`, `sft`."""
    data: DataConfig
    seq_length: Annotated[int, Field(ge=2)]
    """Positions of a packed sequence. Longer documents are split, longer chats refused."""
    micro_batch_size: PositiveInt = 1
    """Packed sequences that a rank computes at once."""
    global_batch_size: PositiveInt
    """Packed sequences of one optimizer step over all data parallel ranks."""
    duration: DurationConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()


class RunConfig(Section):
    """A whole RUN.yaml."""

    out: Path
    """Run folder: resolved configuration, metrics, one checkpoint folder a phase."""
    seed: Annotated[int, Field(ge=0)] = 1234
    """Seed of the data order and of every random state."""
    model: ModelConfig
    runtime: RuntimeConfig = RuntimeConfig()
    parallel: ParallelConfig = ParallelConfig()
    phases: Annotated[tuple[PhaseConfig, ...], Field(min_length=1)]
    """Trained in this order; each starts from the weights the one before ended with."""

    @model_validator(mode="after")
    def _phase_names_differ(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phase names must differ, found {names}")
        return self

    @model_validator(mode="after")
    def _global_batch_divides(self) -> Self:
        for phase in self.phases:
            per_step = phase.micro_batch_size * self.parallel.data
            if phase.global_batch_size % per_step:
                raise ValueError(
                    f"phase {phase.name!r}: global_batch_size {phase.global_batch_size} is not a "
                    f"multiple of micro_batch_size {phase.micro_batch_size} x data parallel "
                    f"{self.parallel.data} = {per_step}"
                )
        return self

    def num_microbatches(self, phase: PhaseConfig) -> int:
        """Return the micro batches that each data parallel rank computes per optimizer step."""
        return phase.global_batch_size // (phase.micro_batch_size * self.parallel.data)
