"""metrics.jsonl: one JSON line an optimizer step; its names, its row and its readers.

A number that a step does not have is left out of its line. Loss and gradient norm are always there:
null where they were not finite, which JSON cannot say.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.json_input import parse_json, read_file, shown
from megatron_msm.formats.json_types import JsonObject

METRICS_FILE = "metrics.jsonl"
LOSS = "loss/lm_nats"
GRAD_NORM = "optim/grad_norm"
STEP_S = "time/step_s"
VALIDATION = "validation/"
"""Begins the names of losses on held-out data."""

_BYTES_PER_LINE = 1024
"""More than a line has; those with many parts of the data are longer, and fewer are then read."""


class StepMetrics(BaseModel):
    """One line of metrics.jsonl, to be written. The aliases are the file's names, with units."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    phase: str
    step: int
    """Optimizer steps done in the phase, counted from 1."""
    loss: float | None = Field(alias=LOSS)
    """Mean cross entropy over the global batch's unmasked tokens; null when not finite."""
    lr: float = Field(alias="optim/lr")
    grad_norm: float | None = Field(alias=GRAD_NORM)
    """Global norm before clipping; null when not finite."""
    skipped_steps: int = Field(alias="optim/skipped_steps")
    """Steps of the phase so far that changed nothing, because loss or gradient was not finite."""
    rolled_back_to: int | None = Field(default=None, alias="optim/rolled_back_to_step")
    """This step was a loss spike: its update and those since the given step were undone."""
    loss_tokens: int = Field(alias="tokens/loss")
    """Unmasked tokens of the step."""
    processed_tokens: int = Field(alias="tokens/processed")
    """Positions of the step, padding included."""
    tokens_per_s: float = Field(alias="throughput/tokens_per_s")
    """Processed positions per second over all ranks, padding and empty sequences included."""
    loss_tokens_per_s: float = Field(alias="throughput/loss_tokens_per_s")
    """Unmasked tokens per second over all ranks: what of it the model learns from."""
    tflops_per_s: float = Field(alias="throughput/tflops_per_s_per_rank")
    """Model FLOPs by the formula of models/sizes/flops.py."""
    mfu: float | None = Field(default=None, alias="throughput/mfu")
    """The same as a share of the GPU's peak in the run's precision; on known GPUs only."""
    peak_gib: float = Field(alias="memory/peak_gib")
    """Rank 0's highest use so far: of GPU memory, or of the process on a CPU."""
    step_s: float = Field(alias=STEP_S)
    """Without validation and saving."""
    data_s: float = Field(alias="time/data_s")
    """Part of `step_s`: rank 0 builds micro batches."""
    forward_backward_s: float = Field(alias="time/forward_backward_s")
    """Part of `step_s`: forward, backward and their communication."""
    optimizer_s: float = Field(alias="time/optimizer_s")
    """Part of `step_s`: gradient norm and update."""
    save_s: float | None = Field(default=None, alias="time/save_s")
    """Training stood still for a checkpoint after the step before."""
    validation_s: float | None = Field(default=None, alias="time/validation_s")
    """Training stood still for the validation after this step."""
    parts: dict[str, float] = Field(default_factory=dict, exclude=True)
    """`loss/source/docs_nats`, `loss/domain/cheese_nats`: mean loss of a part of the data, by
    `logging.loss_by`; and `validation/heldout_nats`: mean loss of a held-out dataset with the
    weights after this step."""

    def numbers(self) -> dict[str, Any]:
        """Return what the step has, by name."""
        return {**self.model_dump(by_alias=True, exclude_none=True), **self.parts}

    def row(self) -> dict[str, Any]:
        """Return the line: what can be not finite is always there, as a number or null."""
        always = {LOSS: self.loss, GRAD_NORM: self.grad_norm}
        numbers = self.numbers()
        head = {name: numbers[name] for name in ("phase", "step")}
        return {**head, **always, **numbers}


Kind = TypeVar("Kind", str, int, float)


@dataclass(frozen=True)
class LoggedStep:
    """What readers need of one line."""

    phase: str
    step: int
    loss: float | None
    """Nats per token; None where it was not finite."""
    step_s: float | None


def read_steps(path: Path) -> list[LoggedStep]:
    """Return every line, in the file's order: a resumed run may have made a step twice.

    Raises:
        DataFormatError: The file cannot be read, or a line is not a step.
    """
    content = read_file(path, what="metrics", remedy="Give the metrics.jsonl of a training run.")
    lines = [line for line in enumerate(_whole_lines(content), start=1) if line[1].strip()]
    return [_step(line, f"{path} line {number}") for number, line in lines]


def read_last_steps(path: Path, num_steps: int) -> list[LoggedStep]:
    """Return the last whole lines, at most `num_steps`, without reading a long file.

    Raises:
        DataFormatError: A line is not a step.
    """
    with path.open("rb") as file:
        start = max(path.stat().st_size - _BYTES_PER_LINE * num_steps, 0)
        file.seek(start)
        lines = _whole_lines(file.read())
    whole = lines[1:] if start else lines
    return [_step(line, f"{path}, near its end") for line in whole[-num_steps:]]


def _whole_lines(content: bytes) -> list[bytes]:
    """Return the lines without a last one that a kill, or a run that is writing it, left torn."""
    *lines, last = content.split(b"\n")
    return [*lines, last] if last.endswith(b"}") else lines


def _step(line: bytes, where: str) -> LoggedStep:
    row = parse_json(line, where=where)
    if not isinstance(row, dict):
        raise DataFormatError(f"{where}: found {shown(row)}; a metrics row is a JSON object.")
    phase, step = _field(row, "phase", str, where), _field(row, "step", int, where)
    loss = None if row.get(LOSS, "") is None else _field(row, LOSS, float, where)
    step_s = None if row.get(STEP_S) is None else _field(row, STEP_S, float, where)
    return LoggedStep(phase, step, loss, step_s)


def _field(row: JsonObject, name: str, kind: type[Kind], where: str) -> Kind:
    """Return a value of a row that has to be there; where a float is needed, an int is one too."""
    value = row.get(name)
    if kind is float and isinstance(value, int):
        return kind(value)
    if isinstance(value, kind):
        return value
    found = shown(value) if name in row else "nothing"
    raise DataFormatError(
        f"{where}: field `{name}`: found {found}. Give the metrics.jsonl that `msm train` wrote."
    )
