"""A run on this machine, from its checks to its end: what `msm train` does where no rank is set."""

import dataclasses
import os
import sys

from megatron_msm.config.load import dump_config
from megatron_msm.config.run import RunConfig
from megatron_msm.data.packing.packings import Packings
from megatron_msm.formats.checkpoint_folder import RUN_FILE
from megatron_msm.formats.files import write_text_atomic
from megatron_msm.next_step import tell_next
from megatron_msm.train.base import make_base
from megatron_msm.train.checkpoints.resume import next_phase
from megatron_msm.train.checks import checked_run
from megatron_msm.train.dataset_hashes import verify_datasets
from megatron_msm.train.ranks.launch import launch
from megatron_msm.train.ranks.run_lock import run_lock
from megatron_msm.train.ranks.shared_packings import shared_packings
from megatron_msm.train.resolved_run import ResolvedRun
from megatron_msm.train.stop import StopSignal
from megatron_msm.train.summary import not_checked, tell


def describe_run(config: RunConfig) -> None:
    """Check a run and print what it will do; writes nothing. Of several ranks, the first does it.

    Raises:
        MsmError: The run cannot work.
    """
    if os.environ.get("RANK", "0") == "0":
        run = checked_run(config)
        tell(run, next_phase(run))
        for line in not_checked(config):
            sys.stdout.write(f"{line}\n")


def train_here(config: RunConfig, stop: StopSignal) -> None:
    """Check a run, start its ranks on this machine and wait for their end.

    Raises:
        MsmError: The run cannot work.
        SystemExit: A rank failed, or the run was preempted; with its status.
    """
    packings = Packings()
    run = checked_run(config, packings)
    with run_lock(config.out):
        _train(config, run, packings, stop)


def _train(config: RunConfig, run: ResolvedRun, packings: Packings, stop: StopSignal) -> None:
    run = dataclasses.replace(run, base=make_base(config))
    start = next_phase(run)
    tell(run, start)
    checkpoint = config.out / config.phases[-1].name
    if start is None:
        tell_next("msm", "convert", "export", checkpoint, "HF_DIR")
        return
    verify_datasets(run)
    resolved = config.out / RUN_FILE
    write_text_atomic(resolved, dump_config(config))
    with shared_packings(config.out, packings) as folder:
        del run, start, packings  # the ranks read theirs, and this process waits for days
        status = launch(
            resolved,
            num_ranks=config.parallel.world_size,
            threads=config.runtime.threads_per_rank,
            logs=config.out / "logs",
            packings=folder,
            stop=stop,
        )
    if status:
        sys.exit(status)
    sys.stdout.write(f"done       {checkpoint}\n")
    tell_next("msm", "convert", "export", checkpoint, "HF_DIR")
