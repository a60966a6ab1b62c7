"""What a phase trains on: datasets, how much of each, and how documents are packed."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from megatron_msm.config.section import PositiveInt, Section


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
