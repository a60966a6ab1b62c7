"""OUT/starts.jsonl: one line for each start of a run, with everything that it ran on and from.

Together with msm_run.yaml (the resolved configuration) it makes the run folder self-describing.
"""

import socket
import time
from pathlib import Path

import orjson

from megatron_msm.formats.json_types import JsonRow
from megatron_msm.runtime.versions import installed_versions, source_commit
from megatron_msm.train.checkpoints.resume import PhaseStart
from megatron_msm.train.resolved_run import ResolvedPhase, ResolvedRun

STARTS_FILE = "starts.jsonl"


def record_start(run: ResolvedRun, start: PhaseStart) -> None:
    """Append this start's line; called by rank 0."""
    path = run.config.out / STARTS_FILE
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("ab") as file:
        file.write(b"\n" * torn + orjson.dumps(_record(run, start)) + b"\n")


def _record(run: ResolvedRun, start: PhaseStart) -> JsonRow:
    base = run.base.state
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
            "folder": str(run.base.folder),
            "identity": base.identity,
            "model_sha256": base.model_sha256,
            "tokenizer_sha256": base.tokenizer_sha256,
            "chat_template_sha256": base.chat_template_sha256,
        },
        "layout": run.config.parallel.summary,
        "precision": run.config.runtime.precision,
        "phases": [_phase(phase) for phase in run.phases],
        "commit": source_commit(Path(__file__)),
        "versions": installed_versions(),
    }


def _phase(phase: ResolvedPhase) -> JsonRow:
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
