"""`msm eval power`: the precision of a planned study, from a pilot or from given spreads."""

import statistics
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from evals.report.comparison import Arms, compare
from evals.report.inputs import load_results
from evals.statistics.contrast import contrast, training_runs
from evals.statistics.power import Design
from megatron_msm.errors import ConfigError

SHOWN_SEEDS = (1, 2, 3, 4, 6, 8)


class SeedsLine(BaseModel):
    """What a number of seeds an arm can see."""

    model_config = ConfigDict(frozen=True)
    num_seeds: int
    detectable: float
    items_needed: int | None
    """Items that find the wanted effect; None when no number does, or none was asked for."""


class StudyPlan(BaseModel):
    """The precision of a comparison of two trained arms."""

    model_config = ConfigDict(frozen=True)
    unit: str
    num_items: int
    sd_items: float
    sd_seeds: float | None
    """None where it is unknown: then no number of seeds can be planned."""
    effect: float | None
    seeds_needed: int | None
    lines: tuple[SeedsLine, ...]


def plan_study(
    arguments: Sequence[str],
    *,
    sd_items: float | None,
    sd_seeds: float | None,
    num_items: int | None,
    effect: float | None,
) -> StudyPlan:
    """Return the plan.

    Args:
        arguments: `[LABEL=]FILE` of a pilot's results: two arms of one evaluation.
        sd_items: Spread of the change over items, instead of the pilot's.
        sd_seeds: Spread of an arm's mean over seeds, instead of the pilot's.
        num_items: Items, instead of the pilot's.
        effect: A wanted effect.

    Raises:
        ConfigError: What is needed is neither given nor in the pilot.
        DataFormatError: The pilot's results are broken or were not measured alike.
    """
    unit = "units of the metric"
    if arguments:
        arms = _two_arms(arguments)
        first, second = arms
        change = contrast(arms, {second: 1.0, first: -1.0})
        unit = arms[first][0].headline_metric.unit
        sd_items = change.sd_items if sd_items is None else sd_items
        num_items = num_items or change.num_items
        sd_seeds = _sd_of_seeds(arms) if sd_seeds is None else sd_seeds
    if sd_items is None or num_items is None:
        raise ConfigError(
            "power: give --result FILE of two arms, or both --sd-items and --items, so that the "
            "spread over items is known."
        )
    design = Design(sd_items=sd_items, sd_seeds=sd_seeds or 0.0)
    return StudyPlan(
        unit=unit,
        num_items=num_items,
        sd_items=sd_items,
        sd_seeds=sd_seeds,
        effect=effect,
        seeds_needed=design.seeds_needed(effect, num_items=num_items)
        if effect and sd_seeds
        else None,
        lines=tuple(
            SeedsLine(
                num_seeds=seeds,
                detectable=design.detectable(num_items=num_items, num_seeds=seeds),
                items_needed=design.items_needed(effect, num_seeds=seeds) if effect else None,
            )
            for seeds in (SHOWN_SEEDS if sd_seeds else SHOWN_SEEDS[:1])
        ),
    )


def print_plan(plan: StudyPlan, console: Console) -> None:
    """Print the plan."""
    known = "unknown" if plan.sd_seeds is None else f"{plan.sd_seeds:.3g}"
    console.print(
        f"spread over items {plan.sd_items:.3g}, over training seeds {known}, in {plan.unit}; "
        f"{plan.num_items} items",
        soft_wrap=True,
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("seeds an arm", "found with 80% power"):
        table.add_column(column, justify="right")
    if plan.effect:
        table.add_column(f"items that find {plan.effect:g}", justify="right")
    for line in plan.lines:
        needed = [str(line.items_needed or "no number does")] if plan.effect else []
        table.add_row(str(line.num_seeds), f"{line.detectable:.3g}", *needed)
    console.print(table)
    if plan.effect and plan.sd_seeds:
        seeds = plan.seeds_needed or "no number of"
        console.print(f"{plan.effect:g} takes {seeds} seeds an arm with {plan.num_items} items")
    console.print("One seed: what is found holds for that training run, not for the method.")
    if plan.sd_seeds is None:
        console.print("Give several seeds of an arm (--result ARM#SEED=FILE), or --sd-seeds.")


def _two_arms(arguments: Sequence[str]) -> Arms:
    evaluations = compare(load_results(arguments))
    if len(evaluations) != 1 or len(evaluations[0].arms) != 2:
        found = "; ".join(f"{one.first.name}: {', '.join(one.arms)}" for one in evaluations)
        raise ConfigError(
            f"power: found {found}. Give results of two arms of one evaluation (--result "
            "ARM#SEED=FILE)."
        )
    return evaluations[0].arms


def _sd_of_seeds(arms: Arms) -> float | None:
    """Return the pooled spread of the arms' means over their seeds; None with one seed each."""
    squares, dof = 0.0, 0
    for results in arms.values():
        means = [
            statistics.fmean(result.headline_metric.overall.estimate for result in run)
            for run in training_runs(results)
        ]
        if len(means) > 1:
            squares += statistics.variance(means) * (len(means) - 1)
            dof += len(means) - 1
    return (squares / dof) ** 0.5 if dof else None
