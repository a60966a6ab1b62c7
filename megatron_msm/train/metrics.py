"""Metrics as data: one JSON line per optimizer step, and the same numbers for TensorBoard."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from pydantic import BaseModel, ConfigDict, Field

from megatron_msm.formats.files import write_bytes_atomic

METRICS_FILE = "metrics.jsonl"


class StepMetrics(BaseModel):
    """One line of metrics.jsonl. The aliases are the names in the file, with their units."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    phase: str
    step: int
    """Optimizer steps done in the phase, counted from 1."""
    loss: float = Field(alias="loss/lm_nats")
    """Mean cross entropy over the global batch's unmasked tokens."""
    lr: float = Field(alias="optim/lr")
    grad_norm: float = Field(alias="optim/grad_norm")
    loss_tokens: int = Field(alias="tokens/loss")
    """Unmasked tokens of the step."""
    processed_tokens: int = Field(alias="tokens/processed")
    """Positions of the step, padding included."""
    tokens_per_s: float = Field(alias="throughput/tokens_per_s")
    """Processed positions per second over all ranks."""
    step_s: float = Field(alias="time/step_s")


class MetricsWriter:
    """Appends to metrics.jsonl and TensorBoard; a resumed run goes on without gaps or doubles."""

    def __init__(self, run_folder: Path, *, phase: str, first_step: int) -> None:
        """Drop lines of `phase` after `first_step`: the steps are about to be made again."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self._path = run_folder / METRICS_FILE
        _keep_lines_before(self._path, phase, first_step)
        self._file = self._path.open("ab")
        self._tensorboard = SummaryWriter(
            str(run_folder / "tensorboard" / phase), purge_step=first_step + 1
        )

    def write(self, metrics: StepMetrics) -> None:
        """Record one step."""
        row = metrics.model_dump(by_alias=True)
        self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()
        for name, value in row.items():
            if "/" in name:
                self._tensorboard.add_scalar(name, value, metrics.step)

    def flush_to_disk(self) -> None:
        """Make everything written so far survive a crash; called before each checkpoint."""
        os.fsync(self._file.fileno())
        self._tensorboard.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._tensorboard.close()


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
