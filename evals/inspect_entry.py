"""What Inspect finds under `megatron_msm/`: tasks and model providers.

inspect eval megatron_msm/agentic_misalignment -T assistant=Qwen -T samples=10
--model msm-folder//models/sft --model-role judge=anthropic/claude-sonnet-4-6
"""

from evals.judging.journalled_api import msm_endpoint
from evals.models.inspect_apis import msm_folder, msm_script
from evals.tasks.agentic.inspect_task import agentic_misalignment
from evals.tasks.audit.inspect_task import audit
from evals.tasks.open_qa.inspect_task import open_qa
from evals.tasks.reasons.inspect_task import reasons

__all__ = [
    "agentic_misalignment",
    "audit",
    "msm_endpoint",
    "msm_folder",
    "msm_script",
    "open_qa",
    "reasons",
]
