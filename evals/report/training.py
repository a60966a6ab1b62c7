"""How each arm was trained, from the lineage in its folder, and whether arms are matched in it.

Arms of one contrast should differ in the treatment alone: stages of the same name are compared in
steps, tokens, learning rate and packing. Which data they had is told and not judged.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from megatron_msm.formats.eval_result import ModelRecord

IMPORT = "import"
TOKENS_TOLERANCE = 0.005
"""Share by which token counts of matched arms may differ."""


@dataclass(frozen=True)
class TrainedStage:
    """One training phase."""

    name: str
    identity: str
    steps: int | None
    tokens: int | None
    """Positions, padding included."""
    lr: float | None
    seed: int | None
    data: Mapping[str, str]
    """Hash of each dataset by its prefix."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """What else the lineage tells."""


@dataclass(frozen=True)
class ArmTraining:
    """A model and what made it."""

    model: ModelRecord
    stages: tuple[TrainedStage, ...] | None
    """None where the folder does not tell."""

    @property
    def kind(self) -> str | None:
        """What kind of arm it is: `MSM + AFT`, `base`; None where nothing tells."""
        return kind_of(self.model)


_CONTROLS = {"neutral": "neutral documents", "instruction-mix": "instruction mix"}
"""Names in arms of a grid that are no spec and no AFT set."""
_COLUMNS = ("steps", "processed_tokens", "lr", "seed", "data")


def training_of(model: ModelRecord) -> ArmTraining:
    """Return what a model's lineage tells."""
    if model.lineage is None:
        return ArmTraining(model, None)
    stages = [
        TrainedStage(
            name=str(entry.get("stage", "?")),
            identity=str(entry.get("identity", "")),
            steps=details.get("steps"),
            tokens=details.get("processed_tokens"),
            lr=details.get("lr"),
            seed=details.get("seed"),
            data=details.get("data") or {},
            other={
                name: value
                for name, value in details.items()
                if name not in _COLUMNS and value not in (None, {}, [])
            },
        )
        for entry in model.lineage
        for details in [entry.get("details") or {}]
    ]
    return ArmTraining(model, tuple(stages))


def kind_of(model: ModelRecord) -> str | None:
    """Return what an arm went through, by the parts of its name, else by its lineage."""
    parts = re.findall(r"\+(msm|aft|then)\(([^)]*)\)", model.label)
    if parts:
        return " + ".join(
            of if what == "then" else _CONTROLS.get(of, what.upper()) for what, of in parts
        )
    if model.lineage is None:
        return None
    stages = [str(entry.get("stage", "?")) for entry in model.lineage]
    return " + ".join(stage for stage in stages if stage != IMPORT) or "base"


def unmatched(models: Iterable[ModelRecord]) -> list[str]:
    """Say in what stages of the same name differ between models; empty where they are matched."""
    by_name: dict[str, list[TrainedStage]] = {}
    for model in models:
        for stage in training_of(model).stages or ():
            if stage.name != IMPORT:
                by_name.setdefault(stage.name, []).append(stage)
    return [text for name, stages in by_name.items() for text in _differences(name, stages)]


def _differences(name: str, stages: Sequence[TrainedStage]) -> Iterable[str]:
    for what, values in (
        ("steps", [stage.steps for stage in stages]),
        ("tokens", [stage.tokens for stage in stages]),
        ("learning rate", [stage.lr for stage in stages]),
    ):
        known = [value for value in values if value is not None]
        low, high = min(known, default=0), max(known, default=0)
        allowed = TOKENS_TOLERANCE * high if what == "tokens" else 0
        if high - low > allowed:
            yield f"{name}: {what} from {low:,} to {high:,}"
    packings = {str(stage.other.get("packing")) for stage in stages}
    if len(packings) > 1:
        yield f"{name}: packing {' and '.join(sorted(packings))}"
