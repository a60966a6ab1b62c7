"""One training rank, with torchrun's environment variables.

`msm train` starts `python -m megatron_msm.train.ranks.rank RESOLVED.yaml` for each; under
torchrun or SLURM `msm train` itself becomes one.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path

from megatron_msm.config.load import load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.errors import MsmError, PreemptedError
from megatron_msm.train.ranks.failure_file import failure_file, write_failure
from megatron_msm.train.ranks.run_lock import run_lock
from megatron_msm.train.stop import StopSignal

LAUNCHER_PID = "MSM_LAUNCHER_PID"
"""Set by the local launcher: the rank ends when that process does."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Train this rank's part of the run file given on the command line."""
    stop = StopSignal(takes_ctrl_c=LAUNCHER_PID not in os.environ)
    if LAUNCHER_PID in os.environ:
        _die_with_launcher(int(os.environ[LAUNCHER_PID]))
    run_rank(load_config(Path(sys.argv[1]), RunConfig), stop)


def run_rank(config: RunConfig, stop: StopSignal) -> None:
    """Train this rank's part; on an error end the process with the status of its class."""
    # megatron-core warns at import about each optional library it does not find; `msm doctor` says
    # it.
    warnings.filterwarnings("ignore")
    rank = int(os.environ.get("RANK", "0"))
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format=f"%(asctime)s rank {rank} %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    # What it logs as an error it also raises.
    logging.getLogger("megatron.core").setLevel(logging.CRITICAL)
    failure_file(config.out, rank).unlink(missing_ok=True)
    try:
        _train(config, stop)
    except PreemptedError as error:
        if rank == 0:
            sys.stderr.write(f"stopped    {error}\n")
        _exit_now(error.exit_status)
    except BaseException as error:
        if isinstance(error, MsmError):
            sys.stderr.write(f"error: {error}\n")
        else:
            traceback.print_exc()
        _exit_now(error.exit_status if isinstance(error, MsmError) else 1)


def _train(config: RunConfig, stop: StopSignal) -> None:
    # Imported after the warnings are silenced.
    from megatron_msm.runtime import process_groups
    from megatron_msm.runtime.device import select_runtime, set_cuda_environment
    from megatron_msm.train.ranks.failure_watch import FailureWatch
    from megatron_msm.train.ranks.resolve_on_node import resolve_on_node
    from megatron_msm.train.trainer import Trainer

    info = process_groups.rank_info_from_environment()
    try:
        set_cuda_environment(config.parallel, deterministic=config.runtime.deterministic)
        runtime = select_runtime(config.runtime, local_rank=info.local_rank)
        ranks = process_groups.initialize(
            info,
            runtime,
            config.parallel,
            seed=config.seed,
            timeout_min=config.runtime.timeout_min,
        )
    except BaseException as error:
        write_failure(config.out, info.rank, error)
        raise
    # The local launcher holds the lock itself.
    is_holder = ranks.rank == 0 and LAUNCHER_PID not in os.environ
    lock = run_lock(config.out) if is_holder else contextlib.nullcontext()
    with FailureWatch(config.out, ranks.rank), lock:
        run = resolve_on_node(config, info)
        stop.hold()
        Trainer(run, runtime, ranks, stop).fit()
    process_groups.shut_down()


def _die_with_launcher(launcher: int) -> None:
    """Ask the kernel to end this rank when the launcher ends, however it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        sys.exit(1)


def _exit_now(status: int) -> None:
    """End without waiting for other ranks: a normal exit could hang in a collective's clean-up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
