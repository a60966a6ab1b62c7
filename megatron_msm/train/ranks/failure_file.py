"""OUT/failures/rank_N.json: why a rank failed, where, and the traceback. No torch."""

import os
import socket
import sys
import time
import traceback
from pathlib import Path

from megatron_msm.formats.files import write_json_atomic
from megatron_msm.formats.json_types import JsonRow

FAILURES_FOLDER = "failures"


def failure_file(out: Path, rank: int) -> Path:
    """Return where a rank that fails says why."""
    return out / FAILURES_FOLDER / f"rank_{rank}.json"


def describe_failure(rank: int, error: BaseException) -> str:
    """Return one line: which rank, where, why."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"rank {rank} on {socket.gethostname()} failed: {reason}"


def write_failure(out: Path, rank: int, error: BaseException) -> None:
    """Write why this rank failed into the run folder, if that is possible."""
    path = failure_file(out, rank)
    record: JsonRow = {
        "rank": rank,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "unix_time_s": time.time(),
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, record)
    except OSError as problem:
        sys.stderr.write(f"{path}: could not be written: {problem}\n")
