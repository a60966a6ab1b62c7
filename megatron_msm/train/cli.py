"""`msm train`: check and describe a run, then start its ranks or be one of them."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer


def train(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run's configuration.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value]...", help="Changes, such as phases.sft.seq_length=512."
        ),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Check and describe the run, train nothing.")
    ] = False,
) -> None:
    """Train the phases of RUN.yaml in order; run again to resume.

    Starts one process per rank on this machine. Under torchrun or SLURM (RANK is set) it joins the
    ranks that were started. SIGTERM or SIGUSR2 makes it save and end with status 75.
    """
    from megatron_msm.train.stop import StopSignal

    stop = None if plan_only else StopSignal()
    from megatron_msm.config.load import dump_config, load_config
    from megatron_msm.config.run import RunConfig
    from megatron_msm.data.packings import Packings
    from megatron_msm.formats.checkpoint_folder import RUN_FILE
    from megatron_msm.formats.files import write_text_atomic
    from megatron_msm.train.base import make_base
    from megatron_msm.train.checkpoints.resume import next_phase
    from megatron_msm.train.checks import checked_run
    from megatron_msm.train.ranks.launch import launch
    from megatron_msm.train.ranks.rank import run_rank
    from megatron_msm.train.ranks.resolve_on_node import shared_packings
    from megatron_msm.train.summary import tell

    config = load_config(run_file, RunConfig, overrides or ())
    if stop is None:
        if os.environ.get("RANK", "0") == "0":
            run = checked_run(config)
            tell(run, next_phase(run))
        return
    if "RANK" in os.environ:  # torchrun or SLURM started the ranks, and this is one
        run_rank(config, stop)
        return
    packings = Packings()
    run = checked_run(config, packings)
    run = dataclasses.replace(run, base=make_base(config))
    start = next_phase(run)
    tell(run, start)
    if start is None:
        return
    config.out.mkdir(parents=True, exist_ok=True)
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
        raise typer.Exit(status)
    typer.echo(f"done       {config.out / config.phases[-1].name}")
