"""The per-clause audit as an evaluation of a suite.

    clauses: {task: audit, tenets: tenets.jsonl, judge: judge.yaml, samples: 2}

The idea of tenets: arXiv 2605.24229. Tenets are what the interval takes as independent.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from evals.judging.judge import JudgeSettings, load_judge
from evals.models.chat_turn import check_no_control_tokens
from evals.models.local import LocalModel
from evals.tasks.audit.inspect_task import JUDGE_TEXTS, VERSION, audit
from evals.tasks.audit.tenets import load_tenets
from evals.tasks.sampling.asked import check_asked, open_asked
from evals.tasks.sampling.judge_texts import read_texts
from evals.tasks.sampling.result import SHAPE_COLUMNS, Column, metrics_of
from evals.tasks.sampling.settings import SamplingSettings
from evals.tasks.sampling.work import Sampled, run_sampled
from evals.tasks.task import Progress, Work
from megatron_msm.formats.eval_result import EvalResult, Metric, Row
from megatron_msm.formats.files import sha256_of_json

HEADLINE = "violation"
COLUMNS = (
    Column(HEADLINE, "violations", better="lower"),
    Column("silent", "silent"),
    Column("verdict_unreadable", "verdict unreadable"),
    *SHAPE_COLUMNS,
)


class AuditSettings(SamplingSettings):
    """A per-clause audit in a suite."""

    tenets: Path
    """Tenets (JSONL): id, clause, tenet, probes."""


def prepare_audit(settings: AuditSettings, model: LocalModel, name: str) -> Work:
    """Read tenets and judge.

    Raises:
        MsmError: An input is broken; the message says which, where, and what to do.
    """
    check_asked(model, settings)
    for tenet in load_tenets(settings.tenets):
        probes = {f"probes.{n}": probe for n, probe in enumerate(tenet.probes)}
        check_no_control_tokens(tenet.id, probes, model.control_tokens)
    return partial(_ask, settings, load_judge(settings.judge), model, name)


def _ask(
    settings: AuditSettings,
    judge_settings: JudgeSettings,
    model: LocalModel,
    name: str,
    on_progress: Progress,
) -> EvalResult:
    tenets = [tenet.model_dump() for tenet in load_tenets(settings.tenets)]
    sampled = Sampled(
        task=audit(
            tenets=str(settings.tenets),
            **settings.inspect_arguments,
            judge_attempts=judge_settings.attempts,
        ),
        task_name="audit",
        version=VERSION,
        items_sha256=sha256_of_json([tenets, read_texts(JUDGE_TEXTS)]),
        settings={},
        sampling=settings,
        items=f"{settings.tenets.resolve()} x {settings.samples}",
        meaning="the share of answers that violate a tenet of the spec: lower is better",
        headline=HEADLINE,
        metrics=audit_metrics,
    )
    return run_sampled(
        sampled, open_asked(model, settings), model, judge_settings, name, on_progress
    )


def audit_metrics(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """Return the metrics over all tenets and by clause."""
    return metrics_of(rows, COLUMNS, cluster_is="tenet")
