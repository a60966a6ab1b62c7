"""The parts of a GRID.yaml that are sections of their own."""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from megatron_msm.config.json_schema import SchemaOf
from megatron_msm.config.run import PhaseConfig
from megatron_msm.config.section import Section

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Files = Annotated[tuple[Path, ...], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]

PhaseFields = Annotated[
    dict[str, Any],
    SchemaOf(PhaseConfig, without=frozenset({"name"}), optional=frozenset({"data"})),
]
"""A phase as in RUN.yaml, without its name and datasets."""

PrepCommand = Literal["docs", "chats"]
"""`msm prep docs` or `msm prep chats`."""
GENERATED = {"documents": "docs", "chats": "chats"}
"""What `msm generate` makes, with the command that makes it."""


class Generated(NamedTuple):
    """A file that a generation makes."""

    name: str
    """The generation's, in `generate`."""
    makes: str
    """`documents` or `chats`."""
    file: Path
    """Relative to the folder of what it makes."""


def generated(path: Path) -> Generated | None:
    """Return what `generate:NAME/documents/CORPUS.jsonl` means; None for any other path."""
    first, *rest = path.parts or ("",)
    if not first.startswith("generate:"):
        return None
    return Generated(first.removeprefix("generate:"), rest[0] if rest else "", Path(*rest))


class ControlsConfig(Section):
    """Arms that are added to the grid; each can be turned off."""

    base: bool = True
    """The model as it came."""
    aft_only: bool = True
    """AFT on the untouched model."""
    msm_only: bool = True
    """Midtraining without AFT."""
    instruction_mix_only: bool = True
    """SFT on the instruction mix alone; needs `instruction_mix`."""
    neutral: bool = True
    """Midtraining on `neutral` documents for as many tokens, then AFT; needs `neutral`."""


class HealthConfig(Section):
    """What the documents of a spec must be like before anything is trained on them."""

    require: Annotated[tuple[str, ...], Field(min_length=1)]
    """Thresholds as `msm prep health --require` takes them, such as `attribution>=0.65`."""
    values: Path | None = None
    """Words of the spec's value."""
    other: Name | None = None
    """The spec whose documents are the other arm of a contrast; `neutral` for those."""
    other_values: Path | None = None
    """Words of the value of that other spec."""
    items: Path | None = None
    """Evaluation items to look for."""
    model: Name | None = None
    """The model under which the loss before training is measured."""


class DoseConfig(Section):
    """How much of each corpus is used. A smaller share is part of every larger one."""

    documents: Share = 1.0
    """Share of the documents of every spec, and of the neutral ones."""
    chats: Share = 1.0
    """Share of the chats of every AFT set; the instruction mix stays whole."""


class ReplayConfig(Section):
    """Ordinary documents that are mixed into midtraining."""

    files: Files
    """The documents (JSONL)."""
    share: Annotated[float, Field(gt=0, lt=1)]
    """Share of the packed sequences that are theirs."""


class LaterConfig(Section):
    """A phase after AFT, such as fine-tuning that pushes the other way."""

    name: Name
    """Its name in arms: `+then(NAME)`."""
    chats: tuple[Path, ...] = ()
    """Chats (JSONL), or else `documents`."""
    documents: tuple[Path, ...] = ()
    """Documents (JSONL), or else `chats`."""
    phase: PhaseFields
    """As in RUN.yaml without `name` and `data`."""

    @model_validator(mode="after")
    def _trains_on_one_kind(self) -> Self:
        if bool(self.chats) == bool(self.documents):
            raise ValueError("give either `chats` or `documents`")
        return self
