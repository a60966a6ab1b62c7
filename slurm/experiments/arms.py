"""A grid's arms, named by lineage, and the report over them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from megatron_msm.errors import ConfigError
from slurm.experiments.arm_stages import ArmStages, KeepStage, report_stage, with_resources
from slurm.experiments.contrasts import named_contrasts, study_contrasts
from slurm.experiments.grid import GridConfig
from slurm.experiments.inputs import Inputs
from slurm.experiments.lineage import Lineage, lineages
from slurm.stages.stage import Stage


@dataclass(frozen=True)
class Arm:
    """One model of the experiment and how it is made."""

    name: str
    lineage: Lineage
    training: tuple[Stage, ...]
    evaluations: Mapping[str, Stage]
    """By the names that the grid gives them."""

    @property
    def ends(self) -> list[Stage]:
        """The stages of this arm that no other of it builds on."""
        return list(self.evaluations.values()) or list(self.training[-1:])

    @property
    def made_of(self) -> list[str]:
        """The identities of these stages."""
        return [stage.identity for stage in self.ends]


@dataclass(frozen=True)
class Experiment:
    """All arms, and the report over them."""

    root: Path
    title: str
    arms: tuple[Arm, ...]
    contrasts: tuple[str, ...]
    """What the report contrasts, each `NAME=+ARM,-ARM,...`."""
    report: Stage | None

    def final_stages(self) -> list[Stage]:
        """Return the stages that nothing else builds on."""
        ends = [stage for arm in self.arms for stage in arm.ends]
        return [*ends, self.report] if self.report else ends


def build_experiment(
    grid: GridConfig, inputs: Inputs, root: Path, *, keep: KeepStage = lambda stage: stage
) -> Experiment:
    """Return the arms of a grid and the graph of stages behind them.

    Args:
        grid: The experiment.
        inputs: Finds and hashes files from outside.
        root: The experiment's folder, absolute.
        keep: Takes each stage as planned and returns the one to build on in its place.

    Raises:
        ConfigError: A contrast names an arm that is not there, or two arms have one name.
    """
    arms: dict[str, Arm] = {}
    for varied, variant in grid.variants():
        makers = {
            model: ArmStages(variant.for_model(model), inputs, keep) for model in variant.models
        }
        for lineage in lineages(variant, varied):
            # Always with its seed: another seed renames no arm.
            name, stages = lineage.name(show_seed=True), makers[lineage.model]
            training = stages.training(lineage)
            evaluations = stages.evaluations(name, lineage, training)
            arm = Arm(name, lineage, tuple(training), evaluations)
            if arms.setdefault(name, arm).made_of != arm.made_of:
                raise ConfigError(
                    f"two arms are called {name}, and are not made alike. Give other values to "
                    "what is varied, or turn the control off."
                )
    results = [
        (arm.name, stage, stage.makes[0])
        for arm in arms.values()
        for stage in arm.evaluations.values()
    ]
    planned = [arm.lineage for arm in arms.values()]
    contrasts = (
        study_contrasts(planned)
        if grid.contrasts is None
        else named_contrasts(grid.contrasts, planned)
    )
    report = None
    if results:
        report = keep(with_resources(report_stage(grid.title, results, contrasts), grid))
    return Experiment(root, grid.title, tuple(arms.values()), tuple(contrasts), report)
