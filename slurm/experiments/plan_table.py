"""What `msm experiment run --dry-run` shows: arms, stages, what is shared, matched or not."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slurm.experiments.arms import Arm, Experiment
from slurm.experiments.grid import GridConfig
from slurm.stages.record import is_finished
from slurm.stages.stage import Stage, in_order


def print_plan(
    grid: GridConfig, experiment: Experiment, console: Console, *, gpu: str = "h100"
) -> None:
    """Print the plan of an experiment, with its training time on one kind of GPU."""
    stages = in_order(experiment.final_stages())
    heading = f"{experiment.title}: {len(experiment.arms)} arms, {len(stages)} stages"
    console.print(heading, markup=False)
    console.print(_arm_table(experiment.arms))
    for line in (*matching(experiment.arms), *_absent_controls(grid)):
        console.print(line, soft_wrap=True, markup=False)
    console.print(_gpu_time(stages, gpu), soft_wrap=True, markup=False)
    if len(grid.seeds) == 1:
        console.print("one seed: differences between arms include the luck of one data order")
    console.rule("stages")
    console.print(_stage_table(experiment, stages))


def matching(arms: Sequence[Arm]) -> list[str]:
    """Say of each phase whether all arms that have it train equally long."""
    lines = []
    phases = {"midtrain": "spec", "sft": "aft"}
    for phase, axis in phases.items():
        having = [arm for arm in arms if getattr(arm.lineage, axis) is not None]
        if not having:
            continue
        trained = [arm.training[0 if phase == "midtrain" else -1] for arm in having]
        amounts = {(stage.num_steps, stage.num_tokens) for stage in trained}
        if None in {tokens for _, tokens in amounts}:
            lines.append(
                f"{phase}: length in epochs, so not known to be matched; give steps or tokens"
            )
        elif len(amounts) == 1:
            [(steps, tokens)] = amounts
            lines.append(f"{phase}: matched, {steps:,} steps and {tokens:,} tokens in every arm")
        else:
            shown = ", ".join(f"{steps:,} steps ({tokens:,} tokens)" for steps, tokens in amounts)
            lines.append(f"{phase}: NOT matched: {shown}")
    return lines


def _gpu_time(stages: Sequence[Stage], gpu: str) -> str:
    """Add up what all distinct training stages need, as `msm plan` estimates each."""
    from megatron_msm.train.estimating import estimate

    hours: list[float | None] = [
        estimate(stage.run, gpu=gpu, model=stage.model).gpu_hours
        for stage in stages
        if stage.run is not None
    ]
    known = [hour for hour in hours if hour is not None]
    missing = len(hours) - len(known)
    rest = f", and {missing} training stages whose length or fit is not known" if missing else ""
    return f"training: {sum(known):.2g} GPU hours on {gpu} (estimated by `msm plan`){rest}"


def _absent_controls(grid: GridConfig) -> list[str]:
    wanted = {
        "neutral documents": (grid.controls.neutral, grid.neutral, "neutral"),
        "instruction mix alone": (
            grid.controls.instruction_mix_only,
            grid.instruction_mix,
            "instruction_mix",
        ),
    }
    return [
        f"control left out: {what}; give `{field}` in the grid, or turn the control off"
        for what, (is_on, files, field) in wanted.items()
        if is_on and not files
    ]


def _arm_table(arms: Sequence[Arm]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", overflow="fold")
    for column in ("steps", "tokens"):
        table.add_column(column, justify="right")
    for arm in arms:
        steps = " + ".join("?" if s.num_steps is None else f"{s.num_steps}" for s in arm.training)
        known = [stage.num_tokens for stage in arm.training if stage.num_tokens is not None]
        tokens = f"{sum(known):,}" if len(known) == len(arm.training) else "?"
        table.add_row(Text(arm.name), steps or "-", tokens if arm.training else "-")
    return table


def _stage_table(experiment: Experiment, stages: Sequence[Stage]) -> Table:
    uses: Counter[str] = Counter()
    for arm in experiment.arms:
        uses.update(stage.identity for stage in in_order(arm.ends))
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "needs", "identity"):
        table.add_column(column, overflow="fold")
    table.add_column("arms", justify="right")
    table.add_column("")
    for stage in stages:
        done = is_finished(experiment.root / stage.folder, stage.identity)
        table.add_row(
            Text(stage.label),
            Text(_needs(stage)),
            stage.identity[:8],
            str(uses[stage.identity] or len(experiment.arms)),
            "finished" if done else "",
        )
    return table


def _needs(stage: Stage) -> str:
    labels = [need.label for need in stage.needs]
    return ", ".join(labels) if len(labels) < 4 else f"{len(labels)} stages"
