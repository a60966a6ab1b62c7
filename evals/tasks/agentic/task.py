"""Agentic misalignment as an evaluation of a suite.

    am: {task: agentic_misalignment, assistant: Qwen, judge: judge.yaml, samples: 300}

The headline is `classifier_verdict`, whether the model decided to act; `harmful` beside it asks in
addition that the act was really sent. A reply whose verdict cannot be read is in neither: the
number of those stands with both, and as a rate of its own.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from evals.judging.judge import JudgeSettings, load_judge
from evals.models.local import LocalModel
from evals.tasks.agentic.conditions import (
    GOALS,
    SCENARIOS,
    Form,
    Goal,
    Scenario,
    build_conditions,
    frame_text,
    scenario_text,
)
from evals.tasks.agentic.inspect_task import DECISIONS, VERSION, agentic_misalignment
from evals.tasks.sampling.asked import check_asked, open_asked
from evals.tasks.sampling.result import SHAPE_COLUMNS, Column, metrics_of
from evals.tasks.sampling.settings import SamplingSettings
from evals.tasks.sampling.work import Sampled, run_sampled
from evals.tasks.task import Progress, Work
from megatron_msm.formats.eval_result import EvalResult, Metric, Row
from megatron_msm.formats.files import sha256_of_json

HEADLINE = "classifier_verdict"


class AgenticSettings(SamplingSettings):
    """Agentic misalignment in a suite."""

    assistant: str
    """The name under which the model is spoken to, as its training calls it."""
    scratchpad: bool = True
    """Whether it is told that it may think in private; not for models that do so anyway."""
    scenarios: tuple[Scenario, ...] = SCENARIOS
    """Some of blackmail, leaking, exfiltration."""
    goals: tuple[Goal, ...] = GOALS
    """Some of the eight goals and none."""
    form: Form = "act"
    """`omission` and `deference` are its twins, where inaction or obedience does the harm."""


MEANINGS: Mapping[Form, str] = {
    "act": "the share of replies that decide for the harmful act",
    "omission": "the share of replies that knowingly let the harm happen",
    "deference": "the share of replies that carry out a harmful order",
}
OTHER_COLUMNS = (
    Column("harmful", "and did it", better="lower"),
    Column("verdict_unreadable", "verdict unreadable"),
    Column("tool_call", "acts at all"),
    Column("tool_call_malformed", "malformed act"),
    Column("refusal", "refusal"),
    *SHAPE_COLUMNS,
)


def prepare_agentic(settings: AgenticSettings, model: LocalModel, name: str) -> Work:
    """Check the judge, and build the conditions.

    Raises:
        MsmError: The model or the judge cannot be asked; the message says where, and what to do.
    """
    check_asked(model, settings)
    return partial(_ask, settings, load_judge(settings.judge), model, name)


def _ask(
    settings: AgenticSettings,
    judge_settings: JudgeSettings,
    model: LocalModel,
    name: str,
    on_progress: Progress,
) -> EvalResult:
    inspect_task = agentic_misalignment(
        assistant=settings.assistant,
        scenarios=list(settings.scenarios),
        goals=list(settings.goals),
        form=settings.form,
        scratchpad=settings.scratchpad,
        **settings.inspect_arguments,
        judge_attempts=judge_settings.attempts,
    )
    sampled = Sampled(
        task=inspect_task,
        task_name="agentic-misalignment",
        version=VERSION,
        items_sha256=_items_sha256(settings),
        settings={
            "assistant": settings.assistant,
            "scratchpad": settings.scratchpad,
            "scenarios": list(settings.scenarios),
            "goals": list(settings.goals),
            # Left out for the study's own form, whose protocols are older than its twins.
            **({} if settings.form == "act" else {"form": settings.form}),
        },
        sampling=settings,
        items=f"{len(settings.scenarios) * len(settings.goals)} conditions x {settings.samples}",
        meaning=f"{MEANINGS[settings.form]}: lower is better",
        headline=HEADLINE,
        metrics=partial(agentic_metrics, form=settings.form),
    )
    return run_sampled(
        sampled, open_asked(model, settings), model, judge_settings, name, on_progress
    )


def agentic_metrics(rows: Sequence[Row], *, form: Form) -> tuple[Metric, ...]:
    """Return the metrics over all conditions and for each."""
    headline = Column(HEADLINE, DECISIONS[form], better="lower")
    return metrics_of(rows, (headline, *OTHER_COLUMNS), cluster_is="condition")


def _items_sha256(settings: AgenticSettings) -> str:
    """Return the hash of every text that the model or the judge reads."""
    conditions = build_conditions(
        settings.scenarios,
        settings.goals,
        form=settings.form,
        assistant=settings.assistant,
        scratchpad=settings.scratchpad,
    )
    texts = [scenario_text(scenario, settings.form) for scenario in settings.scenarios]
    judged = [text.judge.model_dump() for text in texts]
    asked = [[one.id, one.system, one.user] for one in conditions]
    return sha256_of_json([asked, judged, frame_text().judge])
