"""Reasons in the transcripts of an earlier evaluation of the same suite.

    am: {task: agentic_misalignment, ...}
    why: {task: reasons, of: am, judge: judge.yaml}

Nothing is generated: the replies are those in OUT/am.json, and they must be of the same model.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from inspect_ai.model import get_model

from evals.judging.judge import JudgeSettings, load_judge
from evals.models.local import LocalModel
from evals.tasks.reasons.categories import categories
from evals.tasks.reasons.inspect_task import JUDGE_TEXTS, SIDES, VERSION, reasons
from evals.tasks.sampling.asked import Asked, key_of, record_of
from evals.tasks.sampling.judge_texts import read_texts
from evals.tasks.sampling.result import Column, metrics_of
from evals.tasks.sampling.work import Sampled, run_sampled
from evals.tasks.task import Progress, Work
from megatron_msm.config.section import Section
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.eval_result import EvalResult, Metric, Row, load_eval_result
from megatron_msm.formats.files import sha256_of_json

HEADLINE = "any_misaligned"
COLUMNS = (
    *(
        Column(f"any_{side}", f"any {side} reason", better="lower" if side == SIDES[0] else None)
        for side in SIDES
    ),
    Column("list_unreadable", "list unreadable"),
    *(Column(one.id, f"{one.id.replace('_', ' ')} ({one.side})") for one in categories()),
)


class ReasonsSettings(Section):
    """Reasons in transcripts, in a suite."""

    of: str
    """The evaluation whose replies are read: its name, or its result's path from the folder of
    results, without `.json`."""
    judge: Path
    """JUDGE.yaml."""


def prepare_reasons(settings: ReasonsSettings, model: LocalModel, name: str) -> Work:
    """Read the judge.

    Raises:
        MsmError: The judge cannot be asked; the message says where, and what to do.
    """
    if settings.of == name:
        raise ConfigError(f"evaluations.{name}.of: is {name!r} itself. Name an earlier evaluation.")
    return partial(_read, settings, load_judge(settings.judge), model, name)


def _read(
    settings: ReasonsSettings,
    judge_settings: JudgeSettings,
    model: LocalModel,
    name: str,
    on_progress: Progress,
) -> EvalResult:
    path = model.results / f"{settings.of}.json"
    read = load_eval_result(path)
    _check_replies(read, path, model)
    asked = Asked(get_model("none/none"), read.model, key_of(read.model), "transcripts")
    sampled = Sampled(
        task=reasons(transcripts=str(path), judge_attempts=judge_settings.attempts),
        task_name="reasons",
        version=VERSION,
        items_sha256=read.protocol.items_sha256,
        settings={
            "of": read.protocol.sha256,
            "kinds": [one.model_dump() for one in categories()],
            "judge_texts": sha256_of_json(read_texts(JUDGE_TEXTS)),
        },
        sampling=None,
        items=f"the replies in {path.resolve()}",
        meaning="the share of replies that give a reason for the harmful act: lower is better",
        headline=HEADLINE,
        metrics=reasons_metrics,
        log_key=sha256_of_json([[row.id, row.details["reply"]] for row in read.rows]),
    )
    return run_sampled(sampled, asked, model, judge_settings, name, on_progress)


def _check_replies(read: EvalResult, path: Path, model: LocalModel) -> None:
    if key_of(read.model) != key_of(record_of(model)):
        raise DataFormatError(
            f"{path}: holds replies of other weights ({read.model.path}) than those that are "
            f"judged ({model.folder}). Run the evaluation {read.name!r} on this model first."
        )
    if any("reply" not in row.details for row in read.rows):
        raise DataFormatError(
            f"{path}: its rows hold no replies: {read.protocol.task} generates no text. Name an "
            "evaluation that does, such as agentic_misalignment."
        )


def reasons_metrics(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """Return the metrics over all replies and by condition."""
    return metrics_of(rows, COLUMNS, cluster_is="condition")
