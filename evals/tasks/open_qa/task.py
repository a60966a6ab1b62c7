"""Spec open QA as an evaluation of a suite.

    qa: {task: open_qa, questions: questions.jsonl, spec: spec.md, judge: judge.yaml, samples: 4}

Source: Li et al., arXiv 2605.02087, D.2. Points of one question are averaged before questions are.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from evals.judging.judge import JudgeSettings, load_judge
from evals.models.chat_turn import check_no_control_tokens
from evals.models.local import LocalModel
from evals.statistics.summaries import mean_summary
from evals.tasks.open_qa.inspect_task import HIGH, JUDGE_TEXTS, VERSION, open_qa
from evals.tasks.open_qa.items import load_questions, read_spec
from evals.tasks.sampling.asked import check_asked, open_asked
from evals.tasks.sampling.judge_texts import read_texts
from evals.tasks.sampling.result import SHAPE_COLUMNS, Column, metrics_of
from evals.tasks.sampling.settings import SamplingSettings
from evals.tasks.sampling.work import Sampled, run_sampled
from evals.tasks.task import Progress, Work
from megatron_msm.formats.eval_result import EvalResult, Metric, Row
from megatron_msm.formats.files import sha256_of_json

HEADLINE = "points"
COLUMNS = (
    Column(HEADLINE, "points", mean_summary, unit=f"points of {HIGH}", better="higher"),
    Column("points_unreadable", "points unreadable"),
    *SHAPE_COLUMNS,
)


class OpenQASettings(SamplingSettings):
    """Spec open QA in a suite."""

    questions: Path
    """Questions (JSONL): id, category, question."""
    spec: Path
    """Text of the spec that answers are judged by."""


def prepare_open_qa(settings: OpenQASettings, model: LocalModel, name: str) -> Work:
    """Read questions, spec and judge.

    Raises:
        MsmError: An input is broken; the message says which, where, and what to do.
    """
    check_asked(model, settings)
    for question in load_questions(settings.questions):
        fields = {"question": question.question}
        check_no_control_tokens(question.id, fields, model.control_tokens)
    read_spec(settings.spec)
    return partial(_ask, settings, load_judge(settings.judge), model, name)


def _ask(
    settings: OpenQASettings,
    judge_settings: JudgeSettings,
    model: LocalModel,
    name: str,
    on_progress: Progress,
) -> EvalResult:
    questions, spec = load_questions(settings.questions), read_spec(settings.spec)
    asked = [question.model_dump() for question in questions]
    sampled = Sampled(
        task=open_qa(
            questions=str(settings.questions),
            spec=str(settings.spec),
            **settings.inspect_arguments,
            judge_attempts=judge_settings.attempts,
        ),
        task_name="open-qa",
        version=VERSION,
        items_sha256=sha256_of_json([asked, spec, read_texts(JUDGE_TEXTS)]),
        settings={},
        sampling=settings,
        items=f"{settings.questions.resolve()} x {settings.samples}",
        meaning="points for agreement with the spec: higher is better",
        headline=HEADLINE,
        metrics=open_qa_metrics,
    )
    return run_sampled(
        sampled, open_asked(model, settings), model, judge_settings, name, on_progress
    )


def open_qa_metrics(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """Return the metrics over all questions and by category."""
    return metrics_of(rows, COLUMNS, cluster_is="question")
