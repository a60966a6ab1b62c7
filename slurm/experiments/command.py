"""`msm experiment`: a grid of arms as one graph of stages."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from megatron_msm.errors import ConfigError
from megatron_msm.formats.output_paths import check_output_file, check_output_folder
from megatron_msm.lazy_commands import lazy_app
from megatron_msm.next_step import tell_next
from slurm.experiments.experiment_file import (
    read_started,
    stages_of_others,
    write_cancelled,
    write_started,
)
from slurm.experiments.local_screen import LocalScreen
from slurm.experiments.plan_table import print_plan
from slurm.experiments.planning import load_grid, plan_experiment
from slurm.experiments.report import finished_results, write_report
from slurm.experiments.requests import check_requests, estimates_on
from slurm.experiments.status_table import StatusTable
from slurm.jobs.backends import InProcessBackend, LocalBackend
from slurm.jobs.site import load_site
from slurm.jobs.submitted import locked, read_submitted
from slurm.stages.graph import job_folder, run_here
from slurm.stages.queueing import queue_all
from slurm.stages.record import is_finished
from slurm.stages.stage import Stage, in_order
from slurm.stages.status import all_statuses
from slurm.stages.why import differences, nearest_earlier

app = lazy_app(
    {
        name: f"slurm.experiments.command:{name}"
        for name in ("run", "why", "status", "cancel", "report")
    },
    help="Run a grid of arms with its controls, here or on a cluster.\n\n"
    "Example: msm experiment run grid.yaml --local",
)

GridFile = Annotated[Path, typer.Argument(metavar="GRID.yaml", help="The experiment.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to the grid.")
]


Arms = Annotated[
    list[str] | None, typer.Option("--arm", metavar="ARM", help="Only this arm; repeat it.")
]
_RUN = ("msm", "experiment", "run")
_OPEN = ("python3", "-m", "webbrowser")


class Accepted(StrEnum):
    """What may differ from when a finished stage was made."""

    CODE = "code"


Accept = Annotated[
    Accepted | None,
    typer.Option(help="`code` keeps stages that were finished before the code was edited."),
]


def run(
    grid_file: GridFile,
    overrides: Overrides = None,
    *,
    site: Annotated[
        Path | None, typer.Option(metavar="SITE.yaml", help="The cluster's facts.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run here, one stage after the other.")
    ] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="As --local, with all output on the screen.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show arms and stages; start and write nothing.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With the changes that the file's `quick` makes.")
    ] = False,
    accept: Accept = None,
    arm: Arms = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="GPU",
            help="For estimates of time: a100, h100, h200 or b200. Left out: the site's kind.",
        ),
    ] = None,
) -> None:
    """Start every stage that is not finished; run again to go on.

    Example: msm experiment run grid.yaml --local
    """
    is_here = local or in_process
    if is_here and site is not None:
        raise ConfigError("--site is for a cluster: leave it out, or --local and --in-process.")
    site_config = load_site(site)
    grid = load_grid(grid_file, overrides or (), quick=quick)
    for folder in (grid.out, grid.root):
        check_output_folder(folder)
    built = plan_experiment(grid, grid_file, writes=not dry_run, accept_code=accept is not None)
    if not is_here:
        site_config.check_shared(grid.out, "out")
        site_config.check_shared(built.root, "out" if grid.store is None else "store")
    if dry_run:
        shown_site = site_config if site is not None else None
        print_plan(grid, built, Console(highlight=False), site=shown_site, gpu=gpu)
        where = ("--local",) if site is None else ("--site", site)
        tell_next(*_RUN, grid_file, *(overrides or ()), *(("--quick",) if quick else ()), *where)
        return
    stages = in_order(built.final_stages())
    estimates = estimates_on(stages, site_config, otherwise=gpu)
    hours = {s.folder: found.gpu_hours for s in stages if (found := estimates.get(s.identity))}
    started = write_started(
        built,
        grid,
        grid_file,
        only=tuple(arm or ()),
        gpu_hours={folder: each for folder, each in hours.items() if each is not None},
    )
    asked = started.of_arms(tuple(arm or ())).labels
    stages = [stage for stage in stages if stage.folder in asked]

    def wanted() -> Collection[Path]:
        return read_started(grid, grid_file).wanted()

    if is_here:
        screen = LocalScreen(built.root, stages, started, Console(stderr=True))
        if not _run_here(built.root, stages, screen, wanted, in_process=in_process):
            raise typer.Exit(1)
        if built.report is not None and not arm:
            tell_next(*_OPEN, built.root / built.report.output("report.html"))
        else:
            tell_next("msm", "experiment", "report", grid_file, "OUT.html", *(overrides or ()))
        return
    check_requests(stages, site_config)
    queue_all(built.root, stages, site_config, _tell, wanted=wanted)
    tell_next("msm", "experiment", "status", grid_file, *(overrides or ()), "--watch")


def _run_here(
    root: Path,
    stages: Sequence[Stage],
    screen: LocalScreen,
    wanted: Callable[[], Collection[Path]],
    *,
    in_process: bool,
) -> bool:
    if in_process:
        return run_here(root, stages, screen.tell, InProcessBackend(), wanted=wanted)
    backend = LocalBackend()
    try:
        return run_here(root, stages, screen.tell, backend, wanted=wanted, watching=screen.watching)
    except KeyboardInterrupt:
        if screen.running is not None:
            sys.stderr.write(
                f"\n{screen.running.label} goes on in the background; `msm experiment cancel` ends "
                "it, and the same command waits for it and goes on with the other stages\n"
            )
        raise


def why(
    grid_file: GridFile,
    stage: Annotated[
        str, typer.Argument(metavar="STAGE", help="A stage's name or identity, as --dry-run shows.")
    ],
    overrides: Overrides = None,
) -> None:
    """Say what a stage that is not finished has that an earlier one had not.

    Example: msm experiment why grid.yaml 3f2a91bc
    """
    built = plan_experiment(load_grid(grid_file, overrides or ()), grid_file, writes=False)
    stages = in_order(built.final_stages())
    found = [each for each in stages if each.label == stage or each.identity.startswith(stage)]
    if len(found) != 1:
        known = "\n  ".join(f"{each.identity[:8]}  {each.label}" for each in found or stages)
        raise ConfigError(f"{stage!r} names {len(found)} stages; name one of:\n  {known}")
    [asked] = found
    if is_finished(built.root / asked.folder, asked.identity):
        typer.echo(f"finished   {asked.label}, in {asked.folder}")
        return
    earlier = nearest_earlier(built.root, asked)
    if earlier is None:
        typer.echo(f"new        no {asked.kind} stage was planned in {built.root} before")
        return
    typer.echo(f"beside     {earlier.label} [{earlier.identity[:8]}]")
    for line in differences(earlier.ingredients, asked.ingredients):
        typer.echo(line)
    tell_next(*_RUN, grid_file, *(overrides or ()), "--dry-run")


def status(
    grid_file: GridFile,
    overrides: Overrides = None,
    *,
    arm: Arms = None,
    stages: Annotated[
        bool, typer.Option("--stages", help="Every stage, not only those that run or failed.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew every few seconds until all has ended.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show every arm, and of its stages state, progress, time left, loss, and why they failed.

    Example: msm experiment status grid.yaml --watch
    """
    grid = load_grid(grid_file, overrides or ())
    root, started = grid.root, read_started(grid, grid_file).of_arms(tuple(arm or ()))
    table = StatusTable(root, started, all_stages=stages)
    if as_json:
        found = all_statuses(root, started.labels, started.gpu_hours)
        statuses = [status.model_dump(mode="json") for status in found]
        typer.echo(orjson.dumps({"title": started.title, "stages": statuses}).decode())
        return
    states = {each.state for each in (table.watch_until_ended() if watch else table.show())}
    if states <= {"finished"}:
        tell_next("msm", "experiment", "report", grid_file, "OUT.html", *(overrides or ()))
    elif states & {"running", "queued"}:
        tell_next("msm", "experiment", "status", grid_file, *(overrides or ()), "--watch")
    else:
        tell_next(*_RUN, grid_file, *(overrides or ()), why="goes on with what is not finished")


def cancel(grid_file: GridFile, overrides: Overrides = None, *, arm: Arms = None) -> None:
    """Cancel every job of the experiment that waits or runs; what is saved stays.

    What other arms or other experiments with the same folder of stages need goes on.

    Example: msm experiment cancel grid.yaml --arm base
    """
    grid = load_grid(grid_file, overrides or ())
    root, names = grid.root, tuple(arm or ())
    started = write_cancelled(grid, grid_file, names)
    with locked(root):  # nobody queues meanwhile
        needed = stages_of_others(grid, grid_file) | started.wanted()
        _cancel_jobs(root, started.of_arms(names).labels, needed)
    tell_next(*_RUN, grid_file, *(overrides or ()), why="goes on from what is saved")


def _cancel_jobs(root: Path, labels: Mapping[Path, str], needed: Mapping[Path, str]) -> None:
    for folder, label in labels.items():
        submitted = read_submitted(job_folder(root, folder))
        if submitted is None or not submitted.is_live():
            continue
        if folder in needed:
            typer.echo(f"kept       job {submitted.job_id}, {label}: {needed[folder]} needs it")
        else:
            submitted.cancel()
            typer.echo(f"cancelled  job {submitted.job_id}, {label}")


def report(
    grid_file: GridFile,
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="Where the report goes.")],
    overrides: Overrides = None,
) -> None:
    """Write the report over the arms that are evaluated so far (`msm eval report`).

    Example: msm experiment report grid.yaml report.html
    """
    check_output_file(out)
    grid = load_grid(grid_file, overrides or ())
    root, started = grid.root, read_started(grid, grid_file)
    results = finished_results(root, started)
    missing = sum(len(arm.evaluations) for arm in started.arms) - len(results)
    if missing:
        typer.echo(f"warning    {missing} evaluations are not finished yet", err=True)
    for line in write_report(root, started, results, out):
        typer.echo(line)
    typer.echo(f"written    {out}")
    tell_next(*_OPEN, out)


def _tell(stage: Stage, event: str, detail: object) -> None:
    typer.echo(f"{event:<15} {stage.label:<40} {detail}".rstrip())
