"""What a job died of, read from its exit status and its last lines, and what to do about it."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from megatron_msm.errors import ConfigError, PreemptedError

Kind = Literal[
    "preempted",
    "time-limit",
    "configuration",
    "gpu-memory",
    "host-memory",
    "disk-full",
    "network",
    "threshold",
    "budget",
    "python",
    "killed",
    "unknown",
    "requeue-limit",
]

_LONGEST_MESSAGE = 500

# Looked for in this order: ranks that lose a peer complain about the network, so the peer's own
# reason comes first.
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("gpu-memory", re.compile(r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError")),
    ("disk-full", re.compile(r"No space left on device|Disk quota exceeded")),
    (
        "host-memory",
        re.compile(r"oom[-_ ]kill|Cannot allocate memory|^MemoryError|can't allocate memory"),
    ),
    (
        "network",
        re.compile(
            r"NCCL error|nccl(System|Remote|Internal|UnhandledCuda)Error|NCCL watchdog|"
            r"Watchdog caught collective operation timeout|DistBackendError|DistNetworkError|"
            r"Connection (closed|reset) by peer|Gloo connectFullMesh failed|"
            r"\[.*gloo.*\].*(timed out|Timed out)"
        ),
    ),
    ("threshold", re.compile(r"^not met: ")),
)

_REMEDIES: dict[Kind, str] = {
    "preempted": "It goes on from its newest checkpoint when it is started again.",
    "time-limit": "It goes on from its newest checkpoint when it is started again.",
    "configuration": "Correct what the message names and submit again; nothing was requeued.",
    "gpu-memory": "Lower micro_batch_size or seq_length, or raise parallel.tensor or "
    "parallel.pipeline; `msm plan RUN.yaml` tells the memory a rank needs.",
    "host-memory": "Raise mem_gib in the site file, or start fewer ranks a node.",
    "disk-full": "Free space or raise the quota (fewer checkpoints: checkpoint.keep_last), then "
    "submit again: it goes on from the newest whole checkpoint.",
    "network": "A peer or the network between nodes failed. Look at the first failing rank's log; "
    "if it comes again, set `interface` in the site file or `exclude` the node.",
    "threshold": "What would be trained on this corpus was not started. Mend the corpus, or change "
    "`require` in the grid.",
    "budget": "Raise `budget` in the file of the generation or the judge, and run the experiment "
    "again: nothing is paid twice.",
    "python": "The traceback is in the log.",
    "killed": "Nothing in the log says why; often the host's memory: raise mem_gib.",
    "unknown": "The log's last lines are all there is.",
    "requeue-limit": "Find out why it was stopped so often, then submit again: it goes on from "
    "its newest checkpoint.",
}
_BUDGET = re.compile(r"error: max_(cost_usd|tokens) ")
"""How `BudgetReachedError` begins: its status is that of what may go on, and it may not."""
_TRACEBACK_END = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)(?::.*)?$")
_RETRIED: frozenset[Kind] = frozenset({"preempted", "time-limit", "network"})


@dataclass(frozen=True)
class Failure:
    """Why a job ended other than well."""

    kind: Kind
    reason: str
    """One line: what was found."""

    @property
    def remedy(self) -> str:
        """What to do."""
        return _REMEDIES[self.kind]

    @property
    def is_retried(self) -> bool:
        """Whether starting again can help without a change."""
        return self.kind in _RETRIED


def diagnose(status: int, tail: Sequence[str], *, was_signalled: bool = False) -> Failure:
    """Name what a process died of.

    Args:
        status: Its exit status; negative for a signal, as `subprocess` gives it.
        tail: Its last lines of output.
        was_signalled: SLURM has asked the job to stop.
    """
    if status == PreemptedError.exit_status:
        said = _message(tail)
        kind: Kind = "budget" if _BUDGET.match(said) else "preempted"
        return Failure(kind, said or "asked to stop; it has saved")
    if status == ConfigError.exit_status:
        return Failure("configuration", _message(tail) or "status 2")
    if was_signalled and status in (-signal.SIGTERM, -signal.SIGUSR2):
        return Failure("preempted", "asked to stop before it could save")
    for kind, pattern in _PATTERNS:
        for line in tail:
            if pattern.search(line):
                return Failure(kind, line.strip())
    for line in reversed(tail):
        if _TRACEBACK_END.match(line.strip()):
            return Failure("python", line.strip())
    if status < 0:
        return Failure("killed", f"ended by {signal.Signals(-status).name}")
    return Failure("unknown", _last(tail) or f"status {status} and no output")


def _message(tail: Sequence[str]) -> str:
    """Return the last message of the form `error: ...`, which may go over several lines."""
    lines = [line.strip() for line in tail]
    starts = [index for index, line in enumerate(lines) if line.startswith("error:")]
    return " ".join(lines[starts[-1] :]).strip()[:_LONGEST_MESSAGE] if starts else ""


def _last(tail: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(tail) if line.strip()), "")
