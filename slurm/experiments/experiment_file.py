"""What was started: `status`, `cancel` and `report` need neither the inputs nor a plan.

One folder may hold the stages of several grid files. Each has a file of its own here, so what is
asked of one never acts on another.

    OUT/experiments/GRID-HASH.json
"""

from pathlib import Path

import orjson

from megatron_msm.config.section import Section
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import sha256_of_text, write_json_atomic
from slurm.experiments.arms import Experiment
from slurm.experiments.lineage import without_seed
from slurm.stages.stage import in_order

_FOLDER = "experiments"


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


class StartedExperiment(Section):
    """The newest run of one grid file."""

    title: str
    labels: dict[Path, str]
    """What people call each stage, by its folder; each after those it needs."""
    arms: tuple[StartedArm, ...]
    contrasts: tuple[str, ...] = ()
    """What the report contrasts, each `NAME=+ARM,-ARM,...`."""

    def of_arms(self, names: tuple[str, ...]) -> "StartedExperiment":
        """Return the part that some arms need; all of it for no names.

        Raises:
            ConfigError: There is no such arm.
        """
        if not names:
            return self
        for name in names:
            if not any(arm.is_called(name) for arm in self.arms):
                known = ", ".join(arm.name for arm in self.arms)
                raise ConfigError(f"--arm {name}: no such arm; there are {known}.")
        arms = tuple(arm for arm in self.arms if any(arm.is_called(name) for name in names))
        kept = {folder for arm in arms for folder in arm.stages}
        labels = {folder: label for folder, label in self.labels.items() if folder in kept}
        return self.model_copy(update={"labels": labels, "arms": arms})


def write_started(experiment: Experiment, grid_file: Path) -> StartedExperiment:
    """Remember what the newest run of a grid file consists of."""
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
        contrasts=experiment.contrasts,
    )
    path = experiment_path(experiment.root, grid_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, started.model_dump(mode="json"))
    return started


def read_started(root: Path, grid_file: Path) -> StartedExperiment:
    """Return what the newest run of a grid file consists of.

    Raises:
        ConfigError: It has not been run.
    """
    path = experiment_path(root, grid_file)
    if not path.exists():
        raise ConfigError(
            f"{root}: {grid_file} was not run here. Run `msm experiment run {grid_file}`."
        )
    return _read(path)


def stages_of_others(root: Path, grid_file: Path) -> dict[Path, str]:
    """Return the stages below this folder that other grid files need, with what needs them."""
    own = experiment_path(root, grid_file)
    others = [_read(path) for path in sorted(own.parent.glob("[!.]*.json")) if path != own]
    return {folder: other.title for other in others for folder in other.labels}


def experiment_path(root: Path, grid_file: Path) -> Path:
    """Return the file of one grid file's newest run."""
    name = f"{grid_file.stem}-{sha256_of_text(str(grid_file.resolve()))[:8]}"
    return root / _FOLDER / f"{name}.json"


def _read(path: Path) -> StartedExperiment:
    return StartedExperiment.model_validate(orjson.loads(path.read_bytes()))
