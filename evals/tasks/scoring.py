"""What evaluations that compute in this process share: settings, progress, result around rows."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from typing import Protocol as Structure

from evals.models.local import LocalModel
from evals.statistics.summaries import SEED_NOTE
from evals.tasks.task import Progress
from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.formats.eval_result import EvalResult, Metric, Protocol, Row

Dtype = Literal["bf16", "fp32"]


class ScoringSettings(Section):
    """Forward passes of an evaluation in a suite."""

    items: Path
    """Item file (JSONL)."""
    batch_size: PositiveInt = 32
    """Texts or answers in one forward pass; it changes results by rounding only."""
    dtype: Dtype = "bf16"
    """Precision of the forward pass."""


class ForwardPasses(Structure):
    """What the settings of any evaluation say that computes in this process."""

    @property
    def batch_size(self) -> int:
        """Texts that are computed together."""
        ...

    @property
    def dtype(self) -> Dtype:
        """Precision of the forward pass."""
        ...


def counting(on_progress: Progress, total: int) -> Callable[[int], None]:
    """Return a function that is told how many more are done."""
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done += number
        on_progress(done, total)

    return count


def scored_result(
    rows: Sequence[Row],
    metrics: tuple[Metric, ...],
    *,
    name: str,
    protocol: Protocol,
    model: LocalModel,
    settings: ForwardPasses,
    items: str,
    meaning: str,
    headline: str,
    started_s: float,
    runtime: dict[str, Any] | None = None,
) -> EvalResult:
    """Return the result around the rows of an evaluation that computed in this process.

    Args:
        rows: A row an item.
        metrics: Statistics over them.
        name: The evaluation's in its suite.
        protocol: What was asked and how.
        model: Which one was asked.
        settings: Those of the forward passes.
        items: Where the items came from.
        meaning: Which way the headline points, in words.
        headline: The metric that is compared first.
        started_s: When the evaluation began, by `time.monotonic`.
        runtime: What else is worth knowing of the run.
    """
    return EvalResult(
        name=name,
        protocol=protocol,
        protocol_sha256=protocol.sha256,
        model=model.opened(settings.dtype).record,
        items=items,
        meaning=meaning,
        headline=headline,
        metrics=metrics,
        n=len(rows),
        note=SEED_NOTE,
        runtime={
            "batch_size": settings.batch_size,
            "seconds": round(time.monotonic() - started_s, 3),
            **(runtime or {}),
            **model.runtime,
        },
        rows=tuple(rows),
    )
