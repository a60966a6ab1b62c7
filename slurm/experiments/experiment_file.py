"""What was started: `status`, `cancel` and `report` need neither the inputs nor a plan.

One folder may hold the stages of several grid files. Each has a file of its own here, so what is
asked of one never acts on another.

    OUT/experiments/GRID-HASH.json, or below the store of several experiments
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import orjson
from pydantic import Field

from megatron_msm.config.section import Section
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import sha256_of_text, write_json_atomic
from slurm.experiments.arms import Experiment
from slurm.experiments.grid import GridConfig
from slurm.experiments.lineage import without_seed
from slurm.jobs.submitted import locked
from slurm.stages.keeping import EXPERIMENTS, Asked
from slurm.stages.stage import Stage, in_order


class StartedArm(Section):
    """One arm: its stages, and where its results are."""

    name: str
    stages: tuple[Path, ...]
    """Folders of all stages behind it, relative to the experiment's, each after those it needs."""
    evaluations: dict[str, Path]
    """The file with each evaluation's result, below the experiment's folder, by its name."""

    def is_called(self, name: str) -> bool:
        """Whether a name means this arm; one without a seed means those of all seeds."""
        return name in (self.name, without_seed(self.name))


class StartedExperiment(Asked):
    """The newest run of one grid file."""

    title: str
    arms: tuple[StartedArm, ...]
    contrasts: tuple[str, ...] = ()
    """What the report contrasts, each `NAME=+ARM,-ARM,...`."""
    gpu_hours: dict[Path, float] = Field(default_factory=dict)
    """What training stages need, as estimated when it was run, by folder."""
    cancelled: tuple[str, ...] = ()
    """Arms whose jobs were cancelled, and that were not run since: they need no stage."""

    def wanted(self) -> dict[Path, str]:
        """Return the stages that are needed, by folder, with what needs each.

        Where an arm is cancelled, that is no report either, as it reads every arm.
        """
        kept = [arm for arm in self.arms if arm.name not in self.cancelled]
        arms = {folder: arm.name for arm in kept for folder in arm.stages}
        return arms if self.cancelled else dict.fromkeys(self.labels, self.title) | arms

    def of_arms(self, names: tuple[str, ...]) -> "StartedExperiment":
        """Return the part that some arms need; all of it for no names.

        Raises:
            ConfigError: There is no such arm.
        """
        if not names:
            return self
        arms = self._called(names)
        kept = {folder for arm in arms for folder in arm.stages}
        labels = {folder: label for folder, label in self.labels.items() if folder in kept}
        return self.model_copy(update={"labels": labels, "arms": arms})

    def after_cancelling(self, names: tuple[str, ...]) -> "StartedExperiment":
        """Return the experiment with some arms cancelled; all of them for no names.

        Raises:
            ConfigError: There is no such arm.
        """
        arms = self._called(names) if names else self.arms
        more = (arm.name for arm in arms if arm.name not in self.cancelled)
        return self.model_copy(update={"cancelled": (*self.cancelled, *more)})

    def _called(self, names: tuple[str, ...]) -> tuple[StartedArm, ...]:
        for name in names:
            if not any(arm.is_called(name) for arm in self.arms):
                known = ", ".join(arm.name for arm in self.arms)
                raise ConfigError(f"--arm {name}: no such arm; there are {known}.")
        return tuple(arm for arm in self.arms if any(arm.is_called(name) for name in names))


def write_started(
    experiment: Experiment,
    grid: GridConfig,
    grid_file: Path,
    *,
    only: Collection[str] = (),
    gpu_hours: Mapping[Path, float] | None = None,
) -> StartedExperiment:
    """Remember what the newest run of a grid file consists of.

    Args:
        experiment: Its arms.
        grid: The grid.
        grid_file: Its file.
        only: Arms that are run; none means all. Others that were cancelled stay so.
        gpu_hours: Estimates by stage.
    """
    stages = in_order(experiment.final_stages())
    arms = tuple(
        StartedArm(
            name=arm.name,
            stages=tuple(stage.folder for stage in in_order(arm.ends)),
            evaluations={
                task: Path(stage.output(stage.makes[0])) for task, stage in arm.evaluations.items()
            },
        )
        for arm in experiment.arms
    )
    started = StartedExperiment(
        title=experiment.title,
        labels={stage.folder: stage.label for stage in stages},
        arms=arms,
        keep=grid.keep,
        consumers=_consumers(stages),
        contrasts=experiment.contrasts,
        gpu_hours=dict(gpu_hours or {}),
    )
    path = experiment_path(grid, grid_file)
    with locked(path.parent):
        if only and path.exists():
            run_now = {arm.name for arm in started.of_arms(tuple(only)).arms}
            still = {*_read(path).cancelled} - run_now
            cancelled = tuple(arm.name for arm in arms if arm.name in still)
            started = started.model_copy(update={"cancelled": cancelled})
        write_json_atomic(path, started.model_dump(mode="json"))
    return started


def _consumers(stages: Sequence[Stage]) -> dict[Path, tuple[Path, ...]]:
    found: dict[Path, tuple[Path, ...]] = {}
    for stage in stages:
        for need in stage.needs:
            found[need.folder] = (*found.get(need.folder, ()), stage.folder)
    return found


def write_cancelled(grid: GridConfig, grid_file: Path, names: tuple[str, ...]) -> StartedExperiment:
    """Remember that some arms, or for no names all, need no stage until they are run again.

    Raises:
        ConfigError: It has not been run, or has no such arm.
    """
    path = experiment_path(grid, grid_file)
    read_started(grid, grid_file)  # where it was not run, no folder is made
    with locked(path.parent):
        started = read_started(grid, grid_file).after_cancelling(names)
        write_json_atomic(path, started.model_dump(mode="json"))
    return started


def read_started(grid: GridConfig, grid_file: Path) -> StartedExperiment:
    """Return what the newest run of a grid file consists of.

    Raises:
        ConfigError: It has not been run.
    """
    path = experiment_path(grid, grid_file)
    if not path.exists():
        raise ConfigError(
            f"{grid.root}: {grid_file} was not run here. Run `msm experiment run {grid_file}`."
        )
    return _read(path)


def stages_of_others(grid: GridConfig, grid_file: Path) -> dict[Path, str]:
    """Return the stages of the same folder that other experiments need, with what needs them."""
    own = experiment_path(grid, grid_file)
    others = [_read(path) for path in sorted(own.parent.glob("[!.]*.json")) if path != own]
    return {folder: other.title for other in others for folder in other.wanted()}


def experiment_path(grid: GridConfig, grid_file: Path) -> Path:
    """Return the file of one experiment's newest run: one of a grid file and an `out`."""
    who = str(grid_file.resolve())
    if grid.store is not None:
        who += f"\n{grid.out.absolute()}"
    return grid.root / EXPERIMENTS / f"{grid_file.stem}-{sha256_of_text(who)[:8]}.json"


def _read(path: Path) -> StartedExperiment:
    content = orjson.loads(path.read_bytes())
    # Another version, which shares the folder, may write more.
    known = {key: each for key, each in content.items() if key in StartedExperiment.model_fields}
    return StartedExperiment.model_validate(known)
