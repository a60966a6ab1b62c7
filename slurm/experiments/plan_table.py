"""What `msm experiment run --dry-run` shows: arms, stages, what is shared, matched, and needed."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from rich.console import Console

from megatron_msm.name_table import NameTable
from slurm.experiments.arms import Arm, Experiment
from slurm.experiments.estimates import StageEstimate, estimate_training, misfits
from slurm.experiments.grid import GridConfig
from slurm.experiments.requests import asked_for, estimates_on, problems_of_requests
from slurm.jobs.site import SiteConfig
from slurm.stages.keeping import remade
from slurm.stages.record import is_finished
from slurm.stages.stage import Stage, in_order


def print_plan(
    grid: GridConfig,
    experiment: Experiment,
    console: Console,
    *,
    site: SiteConfig | None = None,
    gpu: str | None = None,
) -> None:
    """Print the plan of an experiment.

    Args:
        grid: The experiment's file.
        experiment: Its arms.
        console: Where to.
        site: The cluster: each stage is shown with what it asks of it.
        gpu: The kind of GPU of all estimates. Left out: what site and grid say, or else h100.
    """
    stages = in_order(experiment.final_stages())
    finished = {
        stage.identity
        for stage in stages
        if is_finished(experiment.root / stage.folder, stage.identity)
    }
    finished -= remade(experiment.root, stages)
    estimates = (
        estimates_on(stages, site or SiteConfig(), otherwise="h100")
        if gpu is None
        else estimate_training(stages, gpu)
    )
    console.print(
        f"{experiment.title}: {len(experiment.arms)} arms, {len(stages)} stages, "
        f"{len(stages) - len(finished)} jobs to run",
        markup=False,
    )
    console.print(_arm_table(experiment.arms, estimates))
    for line in (
        *matching(experiment.arms),
        *_absent_controls(grid),
        *_training_time(stages, estimates, finished),
        *misfits(stages, estimates),
        *(() if site is None else problems_of_requests(stages, site)),
    ):
        console.print(line, soft_wrap=True, markup=False)
    if len(grid.seeds) == 1:
        console.print("one seed: differences between arms include the luck of one data order")
    console.rule("stages")
    console.print(_stage_table(experiment, stages, estimates, finished, site))


def matching(arms: Sequence[Arm]) -> list[str]:
    """Say of each phase whether all arms that have it train equally long."""
    lines = []
    for phase, trained in _by_phase(arms).items():
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


def _by_phase(arms: Sequence[Arm]) -> dict[str, list[Stage]]:
    """Return the training stages of all arms by phase, in the order of phases."""
    found: dict[str, list[Stage]] = {}
    for arm in arms:
        for stage in arm.training:
            assert stage.run is not None
            found.setdefault(stage.run.phases[0].name, []).append(stage)
    order = ["midtrain", "sft"]
    return dict(sorted(found.items(), key=lambda p: order.index(p[0]) if p[0] in order else 2))


def _training_time(
    stages: Sequence[Stage],
    estimates: Mapping[str, StageEstimate],
    finished: Collection[str],
) -> list[str]:
    """Add up what all distinct training stages need, and those that are still to run."""
    training = [stage for stage in stages if stage.identity in estimates]
    if not training:
        return []

    def hours(wanted: Sequence[Stage]) -> float:
        return sum(estimates[stage.identity].gpu_hours or 0 for stage in wanted)

    kinds = " and ".join(dict.fromkeys(estimates[stage.identity].gpu for stage in training))
    left = [stage for stage in training if stage.identity not in finished]
    unknown = sum(estimates[stage.identity].gpu_hours is None for stage in training)
    rest = f"; and {unknown} training stages whose length is not known" if unknown else ""
    return [
        f"training: {hours(training):.2g} GPU hours on {kinds}, {hours(left):.2g} of them still to "
        f"run (estimated by `msm plan`){rest}"
    ]


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


def _arm_table(arms: Sequence[Arm], estimates: Mapping[str, StageEstimate]) -> NameTable:
    columns = ("steps", "tokens", "hours", "GPU hours")
    table = NameTable("arm", *columns, right=columns)
    for arm in arms:
        steps = " + ".join("?" if s.num_steps is None else f"{s.num_steps}" for s in arm.training)
        known = [stage.num_tokens for stage in arm.training if stage.num_tokens is not None]
        tokens = f"{sum(known):,}" if len(known) == len(arm.training) else "?"
        found = [estimates[stage.identity] for stage in arm.training]
        table.add_row(
            arm.name,
            steps or "-",
            tokens if arm.training else "-",
            _sum([each.hours for each in found]),
            _sum([each.gpu_hours for each in found]),
        )
    return table


def _sum(hours: Sequence[float | None]) -> str:
    known = [each for each in hours if each is not None]
    if not hours:
        return "-"
    return f"{sum(known):.2g}" if len(known) == len(hours) else "?"


def _stage_table(
    experiment: Experiment,
    stages: Sequence[Stage],
    estimates: Mapping[str, StageEstimate],
    finished: Collection[str],
    site: SiteConfig | None,
) -> NameTable:
    uses: Counter[str] = Counter()
    for arm in experiment.arms:
        uses.update(stage.identity for stage in in_order(arm.ends))
    columns = (
        "identity",
        "needs",
        "arms",
        "GPU hours",
        "state",
        *(() if site is None else ("asks for",)),
    )
    table = NameTable("stage", *columns, right=("arms", "GPU hours"))
    numbers = {stage.identity: number for number, stage in enumerate(stages, 1)}
    width = len(str(len(stages)))
    for stage in stages:
        known = estimates.get(stage.identity)
        table.add_row(
            f"{numbers[stage.identity]:>{width}} {stage.label}",
            stage.identity[:8],
            _needs(stage, numbers),
            str(uses[stage.identity] or len(experiment.arms)),
            "" if known is None else _sum([known.gpu_hours]),
            "finished" if stage.identity in finished else "",
            *(() if site is None else (asked_for(stage, site),)),
        )
    return table


def _needs(stage: Stage, numbers: Mapping[str, int]) -> str:
    """Return the numbers of the stages that one needs, as the table counts them."""
    needed = sorted(numbers[need.identity] for need in stage.before)
    return ", ".join(map(str, needed)) if len(needed) < 5 else f"{len(needed)} stages"
