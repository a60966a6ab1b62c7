"""What SLURM says of a job by its number, wherever its commands are. No torch.

`scontrol` knows jobs until some minutes after their end, `sacct` all of them where the cluster
keeps accounts. No answer says nothing: only a job that is named as ended has ended.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

ENDED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"),
    }
)
"""States of a job that neither waits nor runs. Source: slurm.h, `enum job_states`."""
_TIMEOUT_S = 60


class Accounted(NamedTuple):
    """A job in the cluster's accounts."""

    state: str
    nodes: str


def has_ended(job_id: str) -> bool:
    """Whether SLURM says that a job has ended; False where it does not know, or cannot be asked."""
    state = state_by_controller(job_id)
    if state is None and job_id in (known := accounted([job_id])):
        state = known[job_id].state
    return state in ENDED


def state_by_controller(job_id: str) -> str | None:
    """Return the state of a job as the controller knows it; None where it does not."""
    shown = _answer("scontrol", "show", "job", "--oneliner", job_id)
    state = re.search(r"\bJobState=(\S+)", shown)
    return state.group(1) if state else None


def accounted(job_ids: Sequence[str]) -> dict[str, Accounted]:
    """Return what the cluster's accounts say of jobs; nothing where it keeps none."""
    columns = "--format=JobID,State,NodeList"
    shown = _answer("sacct", "-X", "--noheader", "--parsable2", columns, "-j", ",".join(job_ids))
    rows = (line.split("|") for line in shown.splitlines())
    return {job_id: Accounted(state.split()[0], nodes) for job_id, state, nodes in rows}


def cluster_name() -> str | None:
    """Return the name of the cluster that this process is on; None where there is no SLURM."""
    shown = _answer("scontrol", "show", "config")
    found = re.search(r"^ClusterName\s*=\s*(\S+)", shown, re.M)
    return os.environ.get("SLURM_CLUSTER_NAME") or (found.group(1) if found else None)


def _answer(*command: str) -> str:
    """Return what a command prints; nothing where it is missing, fails or does not answer."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""
