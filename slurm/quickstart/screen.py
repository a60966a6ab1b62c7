"""What the quickstart shows: an estimate, each stage as it runs, and at the end what was made."""

import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from megatron_msm.errors import ConfigError, MsmError
from megatron_msm.name_table import NameTable
from megatron_msm.next_step import tell_next
from megatron_msm.shipped_examples import examples_folder
from slurm.experiments.arms import Experiment
from slurm.experiments.experiment_file import read_started, write_started
from slurm.experiments.grid import GridConfig
from slurm.experiments.planning import plan_experiment
from slurm.experiments.report import finished_results, write_report
from slurm.jobs.attempts import read_attempts
from slurm.jobs.backends import InProcessBackend
from slurm.quickstart.estimate import estimate_line
from slurm.quickstart.results import leading_verdicts, load_results, result_table
from slurm.stages.facts import StageFact, stage_facts
from slurm.stages.graph import failure_text, job_folder, run_here
from slurm.stages.stage import Stage, in_order

_CAVEAT = (
    "One seed and a small model; the intervals are over items and leave out how much one training "
    "differs from the next. Eight seeds, test items and the controls are the study's:"
)


def show_quickstart(grid: GridConfig, grid_file: Path) -> None:
    """Run the experiment here and show it.

    Raises:
        MsmError: A stage failed.
    """
    started, console = time.monotonic(), Console(highlight=False)
    specs = " and of ".join(map(repr, grid.specs))
    console.print(
        f"Model Spec Midtraining with documents of {specs}; everything goes to {grid.out}",
        soft_wrap=True,
        markup=False,
    )
    experiment = plan_experiment(grid, grid_file)
    write_started(experiment, grid, grid_file)
    stages = in_order(experiment.final_stages())
    console.print(estimate_line(stages), soft_wrap=True, markup=False)

    def tell(stage: Stage, event: str, detail: str) -> None:
        line = Text.assemble((stage.label, "bold"), f"  {event}  ", (detail, "dim"))
        if line.cell_len > console.width:
            line = Text.assemble((stage.label, "bold"), f"  {event}\n  ", (detail, "dim"))
        console.print(line, soft_wrap=True)
        if event == "failed":
            raise _failure(experiment.root, stage)

    run_here(experiment.root, stages, tell, InProcessBackend())
    _show_end(experiment, grid, grid_file, console)
    minutes = (time.monotonic() - started) / 60
    console.print(f"this run: {minutes:.1f} min")
    tell_next("python3", "-m", "webbrowser", grid.out / "report.html")


def _failure(root: Path, stage: Stage) -> MsmError:
    """Return the error that the stage's command has ended with."""
    folder = job_folder(root, stage.folder)
    text = f"{stage.label}: {failure_text(folder)}"
    was_input = read_attempts(folder)[-1].status == ConfigError.exit_status
    return ConfigError(text) if was_input else MsmError(text)


def _show_end(experiment: Experiment, grid: GridConfig, grid_file: Path, console: Console) -> None:
    started = read_started(grid, grid_file)
    console.rule("what was made")
    console.print(_stage_table(stage_facts(experiment.root, started.labels)))
    results = finished_results(experiment.root, started)
    verdicts = write_report(experiment.root, started, results, experiment.root / "report.html")
    console.rule("what it changed")
    levels = load_results(results)
    metric = levels[0][1].headline_metric
    console.print(f"{metric.title}, {metric.unit}; {levels[0][1].meaning}", soft_wrap=True)
    console.print(result_table(levels))
    console.print()
    for line in (*leading_verdicts(verdicts, started.contrasts), _CAVEAT):
        console.print(line, soft_wrap=True, markup=False)
    study = examples_folder() / "plain_or_lasting" / "grid.yaml"
    console.print(f"  msm experiment run {study} --local", soft_wrap=True, markup=False)
    console.rule("next")
    chats = next(s for s in in_order(experiment.final_stages()) if "prep chats" in s.label)
    tuned = experiment.arms[-1].evaluations["choice"].needs[0]
    for command in (
        f"msm prep show {grid.out}/{chats.output('data')} --row 0   # what the loss saw",
        f"msm eval run SUITE.yaml {grid.out}/{tuned.output('hf')} --out yours   # your own items",
    ):
        console.print(f"  {command}", soft_wrap=True, markup=False)


def _stage_table(facts: list[StageFact]) -> NameTable:
    table = NameTable("stage", "seconds", "where", "made", right=("seconds",))
    for fact in facts:
        table.add_row(fact.stage, f"{fact.seconds:.1f}", fact.where, fact.made)
    return table
