"""`msm train`: check and describe a run, then start its ranks or be one of them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from megatron_msm.next_step import tell_next
from megatron_msm.train.stop import StopSignal


def train(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run's configuration.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes, such as phases.sft.seq_length=512."),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Check and describe the run, train nothing.")
    ] = False,
) -> None:
    """Train the phases of RUN.yaml in order; run again to resume.

    Starts one process per rank on this machine. Under torchrun or SLURM (RANK is set) it joins the
    ranks that were started. SIGTERM or SIGUSR2 makes it save and end with status 75.

    Example: msm train run.yaml parallel.tensor=2 --plan-only
    """
    stop = None if plan_only else StopSignal()
    # Only now, because they take a second in which a stop signal can come.
    from megatron_msm.config.paths import load_run
    from megatron_msm.train.ranks.rank import run_rank
    from megatron_msm.train.start import describe_run, train_here

    config = load_run(run_file, overrides or ())
    if stop is None:
        describe_run(config)
        tell_next("msm", "train", run_file, *(overrides or ()))
    elif "RANK" in os.environ:  # torchrun or SLURM started the ranks, and this is one
        run_rank(config, stop)
    else:
        train_here(config, stop)
