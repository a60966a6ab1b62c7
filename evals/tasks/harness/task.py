"""A task of lm-evaluation-harness as an evaluation of a suite.

    arithmetic: {task: lm_eval, name: arithmetic_2da, limit: 200}
    own: {task: lm_eval, config: own_task.yaml, chat: true}

The harness builds prompts and scores; the model is the folder as every other evaluation opens it. A
task that comes with the harness has its data fetched by `datasets`, which needs the network once;
a file of one's own may name data beside it. Where a task has several metrics, its first is the
score.
"""

import pkgutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from evals.models.local import LocalModel
from evals.statistics.summaries import mean_summary, metric_of, rate_summary
from evals.tasks.scoring import scored_result
from evals.tasks.task import Progress, Work
from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.formats.eval_result import EvalResult, Metric, Protocol, Row
from megatron_msm.formats.files import sha256_of_json

if TYPE_CHECKING:
    from evals.tasks.harness.running import LoadedTask

LOAD = "evals.tasks.harness.running:load_harness_task"
"""Named and not imported: the harness brings scikit-learn, pandas and nltk, and nobody else waits
for them."""

VERSION = 1
HEADLINE = "score"


class HarnessSettings(Section):
    """A task of the harness in a suite."""

    name: str | None = None
    """A task or group that comes with the harness."""
    config: Path | None = None
    """A task file of one's own, in the harness's form; its relative data files start at its folder.
    It is a program as much as a description: `!function` in it runs code."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples before each question; left out: as the task says."""
    limit: PositiveInt | None = None
    """The first so many items of each task; left out: all."""
    chat: bool = False
    """Whether questions are put in chat turns."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Number format of the weights."""
    batch_size: PositiveInt = 8
    """Questions that are computed together."""

    @model_validator(mode="after")
    def _is_one_task(self) -> Self:
        if (self.name is None) == (self.config is None):
            raise ValueError("give either `name`, a task of the harness, or `config`, a file")
        return self


def prepare_harness(settings: HarnessSettings, model: LocalModel, name: str) -> Work:
    """Load the task with its data.

    Raises:
        MsmError: There is no such task, its data are not there, or the model has no chat template.
    """
    _ = model.chat_files if settings.chat else model.files
    task: LoadedTask = pkgutil.resolve_name(LOAD)(settings.name, settings.config)
    return partial(_ask, settings, task, model, name)


def _ask(
    settings: HarnessSettings,
    task: "LoadedTask",
    model: LocalModel,
    name: str,
    on_progress: Progress,
) -> EvalResult:
    started, opened = time.monotonic(), model.opened(settings.dtype)
    answers = task.run(
        opened,
        num_fewshot=settings.num_fewshot,
        limit=settings.limit,
        chat=settings.chat,
        batch_size=settings.batch_size,
    )
    on_progress(len(answers.rows), len(answers.rows))
    protocol = Protocol(
        task="lm-eval",
        version=VERSION,
        items_sha256=sha256_of_json(answers.item_hashes),
        chat_template_sha256=opened.record.chat_template_sha256 if settings.chat else None,
        settings={
            "tasks": answers.versions,
            "harness": answers.harness_version,
            **settings.model_dump(include={"num_fewshot", "limit", "chat", "dtype"}),
        },
    )
    what = ", ".join(answers.metrics)
    return scored_result(
        answers.rows,
        harness_metrics(answers.rows, answers.better),
        name=name,
        protocol=protocol,
        model=model,
        settings=settings,
        items=task.label,
        meaning=f"{what}, as lm-evaluation-harness counts it: {answers.better or 'neither'} is "
        "better",
        headline=HEADLINE,
        started_s=started,
    )


def harness_metrics(
    rows: Sequence[Row], better: Literal["higher", "lower"] | None
) -> tuple[Metric, ...]:
    """Return the score over all items and by task."""
    is_rate = {row.numbers[HEADLINE] for row in rows} <= {0.0, 1.0}
    statistic, unit = (rate_summary, "share") if is_rate else (mean_summary, "points")
    return (metric_of(rows, HEADLINE, statistic, title="score", unit=unit, better=better),)
