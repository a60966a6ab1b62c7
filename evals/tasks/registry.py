"""Every task by the name that suites and grids call it. A new task is a folder and a line here."""

from collections.abc import Mapping
from typing import Any

from evals.tasks.agentic.task import AgenticSettings, prepare_agentic
from evals.tasks.audit.task import AuditSettings, prepare_audit
from evals.tasks.choice.task import ChoiceSettings, prepare_choice
from evals.tasks.coherence.task import CoherenceSettings, prepare_coherence
from evals.tasks.harness.task import HarnessSettings, prepare_harness
from evals.tasks.open_qa.task import OpenQASettings, prepare_open_qa
from evals.tasks.probes.task import (
    KnowledgeSettings,
    ProbeSettings,
    prepare_identity,
    prepare_knowledge,
    prepare_recall,
)
from evals.tasks.reasons.task import ReasonsSettings, prepare_reasons
from evals.tasks.task import Task
from evals.tasks.tool_calls.task import ToolCallSettings, prepare_tool_calls

TASKS: Mapping[str, Task[Any]] = {
    "agentic_misalignment": Task(AgenticSettings, prepare_agentic, keeps_result=False),
    "audit": Task(AuditSettings, prepare_audit, keeps_result=False),
    "choice": Task(ChoiceSettings, prepare_choice),
    "lm_eval": Task(HarnessSettings, prepare_harness, keeps_result=False),
    "knowledge": Task(KnowledgeSettings, prepare_knowledge),
    "recall": Task(ProbeSettings, prepare_recall),
    "identity": Task(ProbeSettings, prepare_identity),
    "open_qa": Task(OpenQASettings, prepare_open_qa, keeps_result=False),
    "reasons": Task(ReasonsSettings, prepare_reasons, keeps_result=False),
    "tool_calls": Task(ToolCallSettings, prepare_tool_calls),
    "coherence": Task(CoherenceSettings, prepare_coherence),
}
