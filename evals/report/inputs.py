"""What a report is made from: results, loss curves and stage facts, read and checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from evals.statistics.paired import check_comparable
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.eval_result import EvalResult, load_eval_result
from megatron_msm.formats.json_input import parse_json, read_file, shown
from megatron_msm.formats.metrics_file import read_steps


@dataclass(frozen=True)
class LossCurve:
    """Loss by optimizer step in one training phase."""

    phase: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Nats per token; NaN where the step's loss was not finite."""
    run: str = ""
    """Which training run it is of, where several are shown."""

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
    curve: Path | None = None
    """Its metrics.jsonl, where it trained."""


def load_results(
    arguments: Sequence[str],
    *,
    across_protocols: bool = False,
    cluster: str | None = None,
    group: str | None = None,
) -> list[EvalResult]:
    """Read results named by `[LABEL=]FILE`; the label given replaces the one in the file.

    Args:
        arguments: As given on the command line.
        across_protocols: Take results of one evaluation that were not measured alike.
        cluster: In Inspect logs, the field that says which samples are not independent.
        group: In Inspect logs, the field to group by.

    Raises:
        DataFormatError: A result is broken, or was not measured like the first of its evaluation.
        ConfigError: Two results of one evaluation have the same label.
    """
    firsts: dict[str, EvalResult] = {}
    seen_at: dict[tuple[str, str], Path] = {}
    results = []
    for argument in arguments:
        label, path = _label_and_path(argument)
        result = load_result(path, cluster=cluster, group=group)
        if label is not None:
            model = result.model.model_copy(update={"label": label})
            result = result.model_copy(update={"model": model})
        key = result.name, result.model.label
        if key in seen_at:
            raise ConfigError(
                f"{path}: the label {key[1]!r} is that of {seen_at[key]} too. Write --result "
                f"LABEL={path} with another LABEL (or give `msm eval` another --label), so that "
                "the report can tell them apart."
            )
        seen_at[key] = path
        first = firsts.setdefault(result.name, result)
        check_comparable(first, result, across_protocols=across_protocols)
        results.append(result)
    return results


def load_result(path: Path, *, cluster: str | None = None, group: str | None = None) -> EvalResult:
    """Read a result of ours, or an Inspect log as one.

    Raises:
        DataFormatError: It is neither.
    """
    if not _is_inspect_log(path):
        return load_eval_result(path)
    from evals.report.inspect_logs import load_inspect_log  # Inspect takes seconds to import

    return load_inspect_log(path, cluster=cluster, group=group)


def _is_inspect_log(path: Path) -> bool:
    if path.suffix == ".eval" or not path.is_file():
        return path.suffix == ".eval"
    with path.open("rb") as file:
        head = file.read(1000)
    return b'"status"' in head and b'"eval"' in head and b'"msm-eval"' not in head


def _label_and_path(argument: str) -> tuple[str | None, Path]:
    """Split at the `=` that a file's name follows: labels of arms have such signs in them."""
    if Path(argument).is_file():
        return None, Path(argument)
    splits = [(argument[:at], argument[at + 1 :]) for at, c in enumerate(argument) if c == "="]
    for label, name in splits:
        if label and Path(name).is_file():
            return label, Path(name)
    # Reading it says what is wrong with it.
    return (splits[-1][0], Path(splits[-1][1])) if splits else (None, Path(argument))


def load_curve(argument: str) -> LossCurve:
    """Read the loss curve named by `[RUN:]PHASE=metrics.jsonl`; other phases are passed over.

    Raises:
        ConfigError: The argument has another form.
        DataFormatError: The file is broken or has no row of the phase.
    """
    label, path = _label_and_path(argument)
    run, _, phase = (label or "").rpartition(":")
    if not phase or not path.name:
        raise ConfigError(
            f"--metrics {argument}: not of the form [RUN:]PHASE=metrics.jsonl. "
            "Write for example --metrics midtrain=runs/a/metrics.jsonl."
        )
    phases = _phases(path)
    if phase not in phases:
        raise DataFormatError(
            f"{path}: no row of phase {phase!r}; it has {sorted(phases)}. "
            f"Write --metrics PHASE={path} with one of these names."
        )
    return _curve(phase, phases[phase], run)


def curves_of(facts: Sequence[StageFact]) -> list[LossCurve]:
    """Read the loss curves of all stages that trained, phase by phase.

    Raises:
        DataFormatError: A file is gone or broken.
    """
    return [
        _curve(phase, losses, fact.stage)
        for fact in facts
        if fact.curve is not None
        for phase, losses in _phases(fact.curve).items()
    ]


def _phases(path: Path) -> dict[str, dict[int, float]]:
    """Return the loss of each step of each phase; a step that a resumed run made again counts."""
    phases: dict[str, dict[int, float]] = {}
    for row in read_steps(path):
        losses = phases.setdefault(row.phase, {})
        losses[row.step] = math.nan if row.loss is None else row.loss
    return phases


def _curve(phase: str, losses: Mapping[int, float], run: str) -> LossCurve:
    steps = sorted(losses)
    return LossCurve(phase, tuple(steps), tuple(losses[step] for step in steps), run)


def load_facts(path: Path) -> list[StageFact]:
    """Read the stage table.

    Raises:
        DataFormatError: It is not a list of stages.
    """
    remedy = "It is a JSON list of {stage, made, where, seconds, curve}."
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
