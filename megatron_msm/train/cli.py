"""`msm train`: check and describe a run, then start its ranks or be one of them."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from megatron_msm.config.run import RunConfig
    from megatron_msm.train.checkpoints.resume import PhaseStart


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
    from megatron_msm.formats.checkpoint_folder import RUN_FILE
    from megatron_msm.formats.files import write_text_atomic
    from megatron_msm.train.base import make_base
    from megatron_msm.train.checkpoints.resume import next_phase
    from megatron_msm.train.checks import checked_run
    from megatron_msm.train.ranks.launch import launch
    from megatron_msm.train.ranks.rank import run_rank
    from megatron_msm.train.summary import describe

    config = load_config(run_file, RunConfig, overrides or ())
    run = checked_run(config)
    if os.environ.get("RANK", "0") == "0":
        for line in describe(run):
            typer.echo(line)
    if stop is not None:
        run = dataclasses.replace(run, base=make_base(config))
    start = next_phase(run)
    if os.environ.get("RANK", "0") == "0":
        typer.echo(_whereabouts(config, start))
    if start is None or stop is None:
        return
    if "RANK" in os.environ:  # torchrun or SLURM started the ranks, and this is one
        run_rank(config, stop)
        return
    config.out.mkdir(parents=True, exist_ok=True)
    resolved = config.out / RUN_FILE
    write_text_atomic(resolved, dump_config(config))
    status = launch(
        resolved,
        num_ranks=config.parallel.world_size,
        threads=config.runtime.threads_per_rank,
        logs=config.out / "logs",
        stop=stop,
    )
    if status:
        raise typer.Exit(status)
    typer.echo(f"done       {config.out / config.phases[-1].name}")


def _whereabouts(config: "RunConfig", start: "PhaseStart | None") -> str:
    if start is None:
        return f"finished   {config.out / config.phases[-1].name}: nothing left to train"
    if not start.is_resumed:
        return f"starting   {start.phase.config.name}"
    return f"resuming   {start.phase.config.name} after step {start.first_step}"
