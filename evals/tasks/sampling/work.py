"""A generating evaluation from its description to its result."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version

from inspect_ai import Task

from evals.judging.judge import Judge, JudgeSettings, open_judge
from evals.models.local import LocalModel
from evals.statistics.summaries import SEED_NOTE
from evals.tasks.sampling.asked import Asked
from evals.tasks.sampling.run import run_task
from evals.tasks.sampling.settings import SamplingSettings
from evals.tasks.task import Progress
from megatron_msm.formats.eval_result import EvalResult, Metric, Protocol, Row
from megatron_msm.formats.json_types import JsonObject

UNKNOWN_WEIGHTS = "; which weights the server held is not known: it was asked by its name for them"


@dataclass(frozen=True)
class Sampled:
    """What one evaluation adds to the common run."""

    task: Task
    task_name: str
    version: int
    items_sha256: str
    settings: JsonObject
    """What decides a number, beside sampling and judge."""
    sampling: SamplingSettings | None
    """None where replies of an earlier evaluation are judged."""
    items: str
    meaning: str
    headline: str
    metrics: Callable[[Sequence[Row]], tuple[Metric, ...]]
    log_key: str = ""
    """What else decides which log is gone on with: the replies, where they are given."""


def run_sampled(
    sampled: Sampled,
    asked: Asked,
    model: LocalModel,
    judge_settings: JudgeSettings,
    name: str,
    on_progress: Progress,
) -> EvalResult:
    """Ask the model, have its replies judged, and return the result.

    Raises:
        MsmError: The judge cannot be opened, or a reply or verdict could not be had.
    """
    started, logs = time.monotonic(), model.results / "logs"
    judge = open_judge(
        judge_settings, device=model.device_name, step=name, journal=logs / "judge.jsonl"
    )
    with contextlib.closing(judge):
        protocol = _protocol(sampled, asked, judge)
        rows = run_task(
            sampled.task,
            asked,
            judge,
            name=name,
            protocol=protocol,
            logs=logs,
            log_key=sampled.log_key,
            concurrency=_concurrency(sampled, asked, judge),
            on_progress=on_progress,
        )
    return EvalResult(
        name=name,
        protocol=protocol,
        protocol_sha256=protocol.sha256,
        model=asked.record,
        items=sampled.items,
        meaning=sampled.meaning,
        headline=sampled.headline,
        metrics=sampled.metrics(rows),
        n=len(rows),
        note=SEED_NOTE + ("" if asked.record.weights_sha256 else UNKNOWN_WEIGHTS),
        runtime={
            "seconds": round(time.monotonic() - started, 3),
            **model.runtime,
            "server": model.server,
            "inspect_ai": installed_version("inspect-ai"),
            "judge_spent": judge.journalled.spent._asdict() if judge.journalled else None,
        },
        rows=tuple(rows),
    )


def _protocol(sampled: Sampled, asked: Asked, judge: Judge) -> Protocol:
    sampling = sampled.sampling
    return Protocol(
        task=sampled.task_name,
        version=sampled.version,
        items_sha256=sampled.items_sha256,
        chat_template_sha256=asked.record.chat_template_sha256,
        temperature=sampling.temperature if sampling else None,
        samples_per_item=sampling.samples if sampling else 1,
        judge=judge.identity,
        settings={
            **sampled.settings,
            **(sampling.protocol if sampling else {}),
            "asked": asked.way,
        },
    )


def _concurrency(sampled: Sampled, asked: Asked, judge: Judge) -> int:
    if sampled.sampling is None:
        return judge.settings.concurrency
    is_local = asked.way.startswith("in process")
    return sampled.sampling.batch_size if is_local else sampled.sampling.concurrency
