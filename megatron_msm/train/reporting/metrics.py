"""Metrics as data: one JSON line per optimizer step, and the same numbers for the trackers.

This module is where every name and unit is written down. A number that a step does not have is left
out of its line.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field

from megatron_msm.formats.files import write_bytes_atomic

METRICS_FILE = "metrics.jsonl"
VALIDATION = "validation/"


class StepMetrics(BaseModel):
    """One line of metrics.jsonl. The aliases are the names in the file, with their units."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    phase: str
    step: int
    """Optimizer steps done in the phase, counted from 1."""
    loss: float | None = Field(alias="loss/lm_nats")
    """Mean cross entropy over the global batch's unmasked tokens; left out when not finite."""
    lr: float = Field(alias="optim/lr")
    grad_norm: float | None = Field(alias="optim/grad_norm")
    """Global norm before clipping; left out when not finite."""
    skipped_steps: int = Field(alias="optim/skipped_steps")
    """Steps of the phase so far that changed nothing, because loss or gradient was not finite."""
    rolled_back_to: int | None = Field(default=None, alias="optim/rolled_back_to_step")
    """This step was a loss spike: its update and those since the given step were undone."""
    loss_tokens: int = Field(alias="tokens/loss")
    """Unmasked tokens of the step."""
    processed_tokens: int = Field(alias="tokens/processed")
    """Positions of the step, padding included."""
    tokens_per_s: float = Field(alias="throughput/tokens_per_s")
    """Processed positions per second over all ranks."""
    tflops_per_s: float = Field(alias="throughput/tflops_per_s_per_rank")
    """Model FLOPs by the formula of models/flops.py."""
    mfu: float | None = Field(default=None, alias="throughput/mfu")
    """The same as a share of the GPU's peak in the run's precision; on known GPUs only."""
    peak_gib: float = Field(alias="memory/peak_gib")
    """Rank 0's highest use so far: of GPU memory, or of the process on a CPU."""
    step_s: float = Field(alias="time/step_s")
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

    def row(self) -> dict[str, Any]:
        """Return the line."""
        return {**self.model_dump(by_alias=True, exclude_none=True), **self.parts}


class Tracker(Protocol):
    """Something else that shows the numbers; it may drop what it has seen before a kill."""

    def log(self, row: dict[str, Any]) -> None:
        """Show one line."""

    def flush(self) -> None:
        """Make what was logged survive a crash."""

    def close(self) -> None:
        """End."""


class MetricsWriter:
    """Appends to metrics.jsonl and the trackers; a resumed run goes on without gaps or doubles."""

    def __init__(
        self, run_folder: Path, *, phase: str, first_step: int, trackers: list[Tracker]
    ) -> None:
        """Drop lines of `phase` after `first_step`: the steps are about to be made again."""
        self._path = run_folder / METRICS_FILE
        _keep_lines_before(self._path, phase, first_step)
        self._file = self._path.open("ab")
        self._trackers = trackers

    def write(self, metrics: StepMetrics) -> None:
        """Record one step."""
        row = metrics.row()
        self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()
        for tracker in self._trackers:
            tracker.log(row)

    @property
    def lacks_validation(self) -> bool:
        """The last line has no validation: the run was stopped in the midst of it."""
        lines = self._path.read_bytes().splitlines()
        return bool(lines) and not any(
            name.startswith(VALIDATION) for name in orjson.loads(lines[-1])
        )

    def add_to_last(self, parts: dict[str, float]) -> None:
        """Complete the last line."""
        *lines, last = self._path.read_bytes().splitlines(keepends=True)
        row = {**orjson.loads(last), **parts}
        self._file.close()
        last = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        write_bytes_atomic(self._path, b"".join([*lines, last]))
        self._file = self._path.open("ab")
        for tracker in self._trackers:
            tracker.log({"phase": row["phase"], "step": row["step"], **parts})

    def flush_to_disk(self) -> None:
        """Make everything written so far survive a crash; called before each checkpoint."""
        os.fsync(self._file.fileno())
        for tracker in self._trackers:
            tracker.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _keep_lines_before(path: Path, phase: str, first_step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break  # torn by a kill
        row = orjson.loads(line)
        if row["phase"] != phase or row["step"] <= first_step:
            kept.append(line)
    write_bytes_atomic(path, b"".join(kept))
