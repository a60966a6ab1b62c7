"""OUT/starts.jsonl: one line for each start of a run, with everything that it ran on and from.

Together with msm_run.yaml (the resolved configuration) it makes the run folder self-describing.
"""

import socket
import time
from pathlib import Path
from typing import Any

import orjson

from megatron_msm.runtime.versions import installed_versions, source_commit
from megatron_msm.train.checkpoints.resume import PhaseStart
from megatron_msm.train.preflight import PhasePlan, RunPlan

STARTS_FILE = "starts.jsonl"


def record_start(plan: RunPlan, start: PhaseStart) -> None:
    """Append this start's line; called by rank 0."""
    path = plan.config.out / STARTS_FILE
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("ab") as file:
        file.write(b"\n" * torn + orjson.dumps(_record(plan, start)) + b"\n")


def _record(plan: RunPlan, start: PhaseStart) -> dict[str, Any]:
    base = plan.base_state
    return {
        "unix_time_s": round(time.time(), 3),
        "host": socket.gethostname(),
        "phase": start.phase.config.name,
        "after_step": start.first_step,
        "from_checkpoint": {
            "folder": str(start.origin.folder),
            "identity": start.origin.state.identity,
        },
        "base": {
            "folder": str(plan.base_folder),
            "identity": base.identity,
            "model_sha256": base.model_sha256,
            "tokenizer_sha256": base.tokenizer_sha256,
            "chat_template_sha256": base.chat_template_sha256,
        },
        "layout": plan.config.parallel.summary,
        "precision": plan.config.runtime.precision,
        "phases": [_phase(phase) for phase in plan.phases],
        "commit": source_commit(Path(__file__)),
        "versions": installed_versions(),
    }


def _phase(phase: PhasePlan) -> dict[str, Any]:
    pairs = zip(phase.dataset.prefixes, phase.dataset.manifests, strict=True)
    return {
        "name": phase.config.name,
        "steps": phase.num_steps,
        "config_sha256": phase.config_sha256,
        "data": {str(prefix): manifest.sha256 for prefix, manifest in pairs},
        "held_out": {
            str(data.prefix): data.blend.dataset.manifests[0].sha256 for data in phase.held_out
        },
    }
