"""What a report is made from: results, loss curves and stage facts, read and checked."""

import math
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from evals.statistics.paired import check_comparable
from evals.tasks.choice.result import ChoiceResult, load_result
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.json_input import parse_json, read_file, shown
from megatron_msm.formats.metrics_file import read_steps


@dataclass(frozen=True)
class LossCurve:
    """Loss by optimizer step in one training phase."""

    phase: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Nats per token; NaN where the step's loss was not finite."""

    @property
    def num_not_finite(self) -> int:
        """Steps whose loss was NaN or infinite."""
        return sum(not math.isfinite(loss) for loss in self.losses)


class StageFact(BaseModel):
    """One stage of the pipeline, for the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    made: str
    where: str
    seconds: float | None = None


def load_results(paths: list[Path]) -> list[ChoiceResult]:
    """Read results; the first is the reference and all must be comparable with it.

    Raises:
        DataFormatError: A result is broken or was not measured like the first.
        ConfigError: Two results have the same label.
    """
    results = [load_result(path) for path in paths]
    seen_at: dict[str, Path] = {}
    for path, result in zip(paths, results, strict=True):
        label = result.model.label
        if label in seen_at:
            raise ConfigError(
                f"{path}: its label {label!r} is that of {seen_at[label]} too. Run `msm eval "
                "choice` with another --label, so that the report can tell them apart."
            )
        seen_at[label] = path
        check_comparable(results[0], result)
    return results


def load_curve(argument: str) -> LossCurve:
    """Read the loss curve named by `PHASE=metrics.jsonl`; rows of other phases are passed over.

    Raises:
        ConfigError: The argument has another form.
        DataFormatError: The file is broken or has no row of the phase.
    """
    phase, separator, name = argument.partition("=")
    if not (phase and separator and name):
        raise ConfigError(
            f"--metrics {argument}: not of the form PHASE=metrics.jsonl. "
            "Write for example --metrics midtrain=runs/a/metrics.jsonl."
        )
    path = Path(name)
    steps_read = read_steps(path)
    phases = {row.phase for row in steps_read}
    # A resumed run may have made a step twice: the last counts.
    losses = {
        row.step: math.nan if row.loss is None else row.loss
        for row in steps_read
        if row.phase == phase
    }
    if not losses:
        raise DataFormatError(
            f"{path}: no row of phase {phase!r}; it has {sorted(phases)}. "
            f"Write --metrics NAME={path} with one of these names."
        )
    steps = sorted(losses)
    return LossCurve(phase, tuple(steps), tuple(losses[step] for step in steps))


def load_facts(path: Path) -> list[StageFact]:
    """Read the stage table.

    Raises:
        DataFormatError: It is not a list of stages.
    """
    remedy = "It is a JSON list of {stage, made, where, seconds}."
    content = read_file(path, what="stage facts", remedy=remedy)
    value = parse_json(content, where=str(path))
    try:
        return TypeAdapter(list[StageFact]).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "(the whole value)"
        raise DataFormatError(
            f"{path}: field `{field}`: {first['msg']}; found {shown(first['input'])}. {remedy}"
        ) from None
