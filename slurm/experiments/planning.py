"""From a GRID.yaml to the graph behind it."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from megatron_msm.config.explain import as_override, problems_of
from megatron_msm.config.load import load_config
from megatron_msm.errors import ConfigError
from slurm.experiments.arms import Experiment, build_experiment
from slurm.experiments.grid import GridConfig
from slurm.experiments.inputs import Inputs
from slurm.stages.accepted import FinishedUnderOtherCode


def load_grid(grid_file: Path, overrides: Sequence[str], *, quick: bool = False) -> GridConfig:
    """Read a grid file with changes to it.

    Args:
        grid_file: The file.
        overrides: `KEY=VALUE`, each a change.
        quick: Make the changes of its `quick` first.

    Raises:
        ConfigError: The file cannot be read, a field is unknown or wrong, or `quick` is empty.
    """
    if quick:
        changes = load_config(grid_file, GridConfig).quick
        if not changes:
            raise ConfigError(
                f"{grid_file}: --quick: the file has no `quick`. Write there what a first look "
                "changes, such as `quick: {seeds: 2}`."
            )
        # JSON is YAML.
        overrides = [*(f"{key}={json.dumps(value)}" for key, value in changes.items()), *overrides]
    return load_config(grid_file, GridConfig, overrides)


def plan_experiment(
    grid: GridConfig, grid_file: Path, *, writes: bool = True, accept_code: bool = False
) -> Experiment:
    """Return the arms and stages of a grid.

    Args:
        grid: The experiment.
        grid_file: Paths of inputs start at its folder.
        writes: False writes nothing into the experiment's folder.
        accept_code: Keep stages that were finished under other code.

    Raises:
        ConfigError: An input is not there, or a varied field does not exist or refuses its value.
    """
    root = grid.root
    inputs = Inputs(grid_file, root, writes=writes)
    try:
        if accept_code:
            keep = FinishedUnderOtherCode(root).accept
            built = build_experiment(grid, inputs, root, keep=keep)
        else:
            built = build_experiment(grid, inputs, root)
    except ValidationError as error:
        problems = problems_of(error, GridConfig)
        told = (f"{as_override(problem.at, {})}: {problem.text}" for problem in problems)
        raise ConfigError("\n".join(f"{grid_file}: vary: {text}" for text in told)) from None
    inputs.save()
    return built
