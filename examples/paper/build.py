"""Write what `msm plan` says of every recipe and layout, and the table of hours and cost.

    python examples/paper/build.py

makes of each grid, and of each of its layouts/*.txt, what is said in layouts/*.run.yaml (the two
phases of one arm as a run file), layouts/*.plan.txt and hours.md. Nothing is read but the
grids and the sizes in shapes/: no weights, no GPU.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from megatron_msm.config.run import RunConfig
from megatron_msm.plan.estimate import LayoutEstimate, RunEstimate
from megatron_msm.plan.show import as_text
from megatron_msm.train.estimating import estimate
from slurm.experiments.grid import GridConfig, run_config
from slurm.experiments.lineage import lineages
from slurm.experiments.planning import load_grid

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
GPU = "h100"
GPUS_PER_NODE = 8
DOLLARS_PER_GPU_HOUR = 3.0
"""An assumption: rented H100s cost between 2 and 4 dollars an hour."""
NUM_LAYOUTS = 4
ABOUT_HOURS = f"""\
# Hours and cost of the recipes, estimated

Written by `python examples/paper/build.py`. **Nothing here was measured: no GPU has been used.**
Times and memory are estimates of `msm plan` (docs/memory.md says how far to trust them), of
training alone: no generation, evaluation, judge, start of a job, checkpoint or queue. A GPU hour is
taken to cost {DOLLARS_PER_GPU_HOUR:.2f} dollars, which is an assumption.

- GiB: the fullest rank of 79.6, of which 3 are to stay free. With FP8 it includes a copy of the
  weights for each direction of the products, which `msm plan` does not count.
- h midtrain, h SFT: hours of one run. Runs: those of the whole grid, equal ones counted once.
- 1, 4, 16 nodes: hours of all training on so many nodes of eight, as many runs at once as fit
  there, and no less than one arm takes; `-` where not one run fits.
- (1) A part of the optimizer is on the CPU, and the time of that is not in the estimate. A step may
  take two to four times as long (docs/reference/run.md).

"""
AS_IT_STANDS = "as the grid stands"
GIB = 2**30


@dataclass(frozen=True)
class Recipe:
    """A grid, and the sizes of its model."""

    grid: Path
    shape: Path

    @property
    def name(self) -> str:
        """What its files in layouts/ begin with."""
        return self.shape.name


RECIPES = tuple(
    Recipe(HERE / grid, HERE / "shapes" / shape)
    for grid, shape in (
        ("cheese/grid.yaml", "llama-3.1-8b"),
        ("philosophy/qwen25-32b.yaml", "qwen25-32b"),
        ("philosophy/qwen3-32b.yaml", "qwen3-32b"),
        ("factorial/qwen25-14b.yaml", "qwen25-14b"),
        ("factorial/qwen3-14b.yaml", "qwen3-14b"),
    )
)
METHODS = ("lora", "full-fp8")


@dataclass(frozen=True)
class Layout:
    """One way to spread a recipe's training runs over GPUs."""

    name: str
    grid: GridConfig
    run: RunConfig
    """Both phases of an arm."""

    @property
    def num_gpus(self) -> int:
        """GPUs of one run."""
        return self.run.parallel.world_size


def overrides_of(path: Path) -> list[str]:
    """Return what `$(cat FILE)` puts on the command line."""
    return path.read_text().split()


def layouts(recipe: Recipe, method: str) -> list[Layout]:
    """Return the layouts of a method, those with few GPUs first."""
    files = list((recipe.grid.parent / "layouts").glob(f"{method}-*.txt"))
    found = [_layout(recipe, path.stem, overrides_of(path)) for path in files]
    if method == "lora":
        found.append(_layout(recipe, AS_IT_STANDS, []))
    return sorted(found, key=lambda layout: layout.num_gpus)


def _layout(recipe: Recipe, name: str, overrides: list[str]) -> Layout:
    grid = load_grid(recipe.grid, overrides)
    [weights] = grid.models.values()
    phases = {"midtrain": grid.midtrain, "sft": grid.sft}
    runs = [
        run_config(grid, phase, fields, checkpoint=weights, prefixes=[Path("data", phase)], seed=1)
        for phase, fields in phases.items()
        if fields is not None
    ]
    content = runs[0].model_dump(exclude_defaults=True) | {
        "out": Path("runs/plan"),
        "model": {"hf": weights},
        "phases": tuple(run.phases[0] for run in runs),
    }
    return Layout(name, grid, RunConfig.model_validate(content))


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield the overrides that turn one dumped configuration into another."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in after:
            yield from differences(before[key], after[key], f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{path}.{index}")
    elif before != after:
        yield f"{path}={str(after).lower() if isinstance(after, bool) else after}"


def run_file(recipe: Recipe, method: str) -> Path:
    """Return where the run file of a recipe and method lies."""
    return recipe.grid.parent / "layouts" / f"{recipe.name}.{method}.run.yaml"


def estimate_of(recipe: Recipe, layout: Layout) -> RunEstimate:
    """Return the plan of a layout's run."""
    return estimate(layout.run, gpu=GPU, model=recipe.shape)


def write_run_file(recipe: Recipe, method: str, first: Layout) -> None:
    """Write a method's first layout as a run file."""
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with run_file(recipe, method).open("w") as file:
        file.write(
            "# Written by `python examples/paper/build.py`: both phases of an arm, for `msm plan`\n"
        )
        yaml.dump(first.run.model_dump(mode="json", exclude_defaults=True), file)


def plan_text(recipe: Recipe, method: str) -> str:
    """Return what `msm plan` prints of every layout, each under its command."""
    found = layouts(recipe, method)
    base = found[0].run.model_dump(mode="json")
    shown = run_file(recipe, method).relative_to(REPOSITORY)
    model = recipe.shape.relative_to(REPOSITORY)
    lines = ["Written by `python examples/paper/build.py`. Estimates: nothing here was measured."]
    for layout in found:
        changes = differences(base, layout.run.model_dump(mode="json"))
        options = ["--gpu", GPU, "--layouts", str(NUM_LAYOUTS), "--model", str(model)]
        command = shlex.join(["msm", "plan", str(shown), *changes, *options])
        lines += ["", f"== {layout.name}", f"$ {command}"]
        lines += as_text(estimate_of(recipe, layout), num_layouts=NUM_LAYOUTS)
    return "\n".join(lines) + "\n"


def num_runs(grid: GridConfig) -> dict[str, int]:
    """Return how many training runs of each phase a study has; equal ones count once."""
    arms = lineages(grid)
    return {
        "midtrain": len({(arm.spec, arm.seed) for arm in arms if arm.spec}),
        "sft": len({(arm.spec, arm.aft, arm.seed) for arm in arms if arm.aft}),
    }


def memory_gib(layout: Layout, chosen: LayoutEstimate) -> float:
    """Return the fullest rank's memory, with the FP8 copies of weights that a plan does not count.

    Two of a byte for each weight: one for either direction of the products.
    """
    copies = chosen.memory.weights_bytes if layout.run.runtime.fp8 is not None else 0.0
    return (chosen.memory.total_bytes + copies) / GIB


def _row(recipe: Recipe, layout: Layout) -> str:
    found = estimate_of(recipe, layout)
    own = found.own
    assert own is not None  # as many GPUs as the layout has
    runs = num_runs(layout.grid)
    hours = {
        phase: (found.num_steps[phase] or 0) * step.total_s / 3600
        for phase, step in own.steps.items()
    }
    total = sum(runs[phase] * hours[phase] for phase in runs)
    rate = found.tokens_per_step["midtrain"] / own.steps["midtrain"].total_s / layout.num_gpus
    cost = total * layout.num_gpus * DOLLARS_PER_GPU_HOUR
    on_nodes = []
    for nodes in (1, 4, 16):
        at_once = nodes * GPUS_PER_NODE // layout.num_gpus
        least = max(total / at_once, sum(hours.values())) if at_once else None
        on_nodes.append("-" if least is None else f"{least:.2g}")
    mark = " (1)" if layout.run.memory.optimizer_offload else ""
    cells = [
        recipe.name,
        layout.name + mark,
        str(layout.num_gpus),
        f"{memory_gib(layout, own):.0f}",
        f"{rate:,.0f}",
        *(f"{hours[phase]:.2g}" for phase in ("midtrain", "sft")),
        f"{runs['midtrain']} + {runs['sft']}",
        f"{total * layout.num_gpus:.0f}",
        f"{cost:,.0f}",
        *on_nodes,
    ]
    return f"| {' | '.join(cells)} |"


def hours_table() -> str:
    """Return hours.md."""
    columns = (
        *("model", "layout", "GPUs a run", "GiB", "tokens/s and GPU", "h midtrain", "h SFT"),
        *("runs", "GPU hours", "dollars", "1 node", "4 nodes", "16 nodes"),
    )
    rows = (
        _row(recipe, layout)
        for recipe in RECIPES
        for method in METHODS
        for layout in layouts(recipe, method)
    )
    lines = (f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *rows)
    return ABOUT_HOURS + "\n".join(lines) + "\n"


def main() -> None:
    """Write all files."""
    for recipe in RECIPES:
        for method in METHODS:
            write_run_file(recipe, method, layouts(recipe, method)[0])
            text = plan_text(recipe, method)
            run_file(recipe, method).with_name(f"{recipe.name}.{method}.plan.txt").write_text(text)
    (HERE / "hours.md").write_text(hours_table())


if __name__ == "__main__":
    main()
