"""experiment.json: what was started; `status` and `report` need neither grid nor inputs."""

from pathlib import Path

import orjson

from megatron_msm.config.section import Section
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_json_atomic
from slurm.experiments.arms import Experiment
from slurm.stages.stage import in_order

_FILE = "experiment.json"


class StartedArm(Section):
    """One arm: which stages train it, and which judge it."""

    name: str
    training: tuple[Path, ...]
    """Stage folders, relative to the experiment's."""
    evaluations: dict[str, Path]
    """The file with each evaluation's result, below the experiment's folder, by its name."""


class StartedExperiment(Section):
    """The content of experiment.json."""

    title: str
    labels: dict[Path, str]
    """What people call each stage, by its folder; each after those it needs."""
    arms: tuple[StartedArm, ...]


def write_started(experiment: Experiment) -> None:
    """Remember what the newest run of the experiment consists of."""
    stages = in_order(experiment.final_stages())
    arms = tuple(
        StartedArm(
            name=arm.name,
            training=tuple(stage.folder for stage in arm.training),
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
    )
    experiment.root.mkdir(parents=True, exist_ok=True)
    write_json_atomic(experiment.root / _FILE, started.model_dump(mode="json"))


def read_started(root: Path) -> StartedExperiment:
    """Return what the newest run of the experiment consists of.

    Raises:
        ConfigError: It has not been run.
    """
    path = root / _FILE
    if not path.exists():
        raise ConfigError(
            f"{root}: no experiment was run here. Run `msm experiment run GRID.yaml`."
        )
    return StartedExperiment.model_validate(orjson.loads(path.read_bytes()))
