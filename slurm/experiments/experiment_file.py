"""experiment.json: what was started; `status` and `report` need neither grid nor inputs."""

from pathlib import Path

import orjson

from megatron_msm.config.section import Section
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_json_atomic
from slurm.experiments.arms import Experiment
from slurm.stages.record import read_done
from slurm.stages.stage import in_order

_FILE = "experiment.json"


class StartedArm(Section):
    """One arm: which stages train it, and which judges it."""

    name: str
    training: tuple[Path, ...]
    """Stage folders, relative to the experiment's."""
    evaluation: Path | None


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
            evaluation=arm.evaluation.folder if arm.evaluation else None,
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


def stage_facts(root: Path, started: StartedExperiment) -> list[dict[str, str | float]]:
    """Return the table of finished stages that `msm eval report` shows."""
    facts: list[dict[str, str | float]] = []
    for folder, label in started.labels.items():
        done = read_done(root / folder)
        if done is not None:
            made = done.identity[:16]
            facts.append(
                {"stage": label, "made": made, "where": str(folder), "seconds": done.seconds}
            )
    return facts
