"""What a stage's job runs: `python -m slurm.stages.run_stage FOLDER`.

The `msm` command runs in this process, so that signals reach it without a detour. Where ranks are
tasks of a job, each runs this; rank 0 alone checks before and records after.
"""

import os
import sys
import time
from pathlib import Path

from megatron_msm.cli import main as msm
from megatron_msm.errors import ConfigError, MsmError
from slurm.stages.facts import write_facts
from slurm.stages.keeping import drop_unneeded
from slurm.stages.record import check_inputs, is_finished, read_stage, record_outputs

_VISIBLE_WITHIN_S = 60
_POLL_S = 2.0


def run_stage(folder: Path) -> None:
    """Run the command of the stage in `folder`, relative paths starting here.

    Raises:
        ConfigError: Its inputs are not what it was planned with.
        MsmError: It ended well and has not left what it should.
        SystemExit: The command failed.
    """
    stage = read_stage(folder)
    if stage.num_ranks is None and is_finished(folder, stage.identity):
        return  # a job of several stages was started again
    is_first = os.environ.get("RANK", "0") == "0"
    problem = _check_when_visible(folder) if is_first else None
    if problem is not None:
        raise ConfigError(problem)
    if is_first:
        write_facts(folder)
    started = time.monotonic()
    sys.argv = ["msm", *stage.arguments]
    try:
        msm()
    except SystemExit as end:
        if end.code:
            raise
    if is_first:
        record_outputs(folder, seconds=time.monotonic() - started)
        drop_unneeded(folder)


def _check_when_visible(folder: Path) -> str | None:
    """Check the inputs; SLURM has seen them finished, a shared file system may show it later."""
    deadline = time.monotonic() + (_VISIBLE_WITHIN_S if "SLURM_JOB_ID" in os.environ else 0)
    was_told = False
    while (problem := check_inputs(folder)) is not None and time.monotonic() < deadline:
        if not was_told:
            sys.stderr.write(f"waiting    up to {_VISIBLE_WITHIN_S} s: {problem}\n")
            was_told = True
        time.sleep(_POLL_S)
    return problem


if __name__ == "__main__":
    try:
        run_stage(Path(sys.argv[1]))
    except MsmError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_status)
