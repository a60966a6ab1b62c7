"""What stages ask of a site's nodes: shown in the plan, and refused before anything is queued."""

from collections.abc import Sequence

from megatron_msm.errors import ConfigError
from slurm.experiments.estimates import StageEstimate, estimate_training, misfits
from slurm.jobs.sbatch import node_shape
from slurm.jobs.site import SiteConfig
from slurm.stages.stage import Stage


def gpu_kind(stage: Stage, site: SiteConfig) -> str | None:
    """Return the kind of GPU that a stage runs on, as far as the site or the grid says so."""
    return site.resources(stage.kind, stage.resources).gpu_kind or site.gpu_kind


def estimates_on(
    stages: Sequence[Stage], site: SiteConfig, *, otherwise: str | None
) -> dict[str, StageEstimate]:
    """Return the estimate of training stages, each on its own kind of GPU, by identity.

    Args:
        stages: Those that do not train are passed over.
        site: The cluster.
        otherwise: The kind of GPU where none is named; None leaves such stages out.

    Raises:
        ConfigError: A kind of GPU is not known, or cannot run the precision.
    """
    found: dict[str, StageEstimate] = {}
    for stage in stages:
        if (kind := gpu_kind(stage, site) or otherwise) is not None:
            found |= estimate_training([stage], kind)
    return found


def asked_for(stage: Stage, site: SiteConfig) -> str:
    """Return what the stage's job asks for, as the plan shows it: nodes, partition, time."""
    resources = site.resources(stage.kind, stage.resources)
    try:
        nodes, tasks = node_shape(stage.num_ranks or 1, resources)
    except ConfigError:
        return "DOES NOT FIT"
    parts = [f"{nodes} x {tasks} {'GPU' if resources.gpus else 'task'}"]
    parts += [resources.partition] if resources.partition else []
    parts += [f"{resources.time_min} min"] if resources.time_min else []
    return ", ".join(parts)


def check_requests(stages: Sequence[Stage], site: SiteConfig) -> None:
    """Refuse what the site cannot give, before any job waits for it.

    Raises:
        ConfigError: Ranks do not fill nodes, a time limit leaves no time, or a stage does not fit
            into its GPUs.
    """
    problems = misfits(stages, estimates_on(stages, site, otherwise=None))
    problems += problems_of_requests(stages, site)
    if problems:
        raise ConfigError("\n".join(("nothing was queued:", *problems)))


def problems_of_requests(stages: Sequence[Stage], site: SiteConfig) -> list[str]:
    """Say which stages ask for what cannot be: nodes not filled, no time, one thing twice."""
    problems: list[str] = []
    for stage in stages:
        resources = site.resources(stage.kind, stage.resources)
        if (wrong := site.problem(resources)) is not None:
            problems.append(f"{stage.label}: {wrong}")
        try:
            node_shape(stage.num_ranks or 1, resources)
        except ConfigError as error:
            problems.append(f"{stage.label}: {error}")
    return problems
