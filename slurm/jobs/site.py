"""site.yaml: what is true of a cluster and not of a run.

Partition and account, what a job may ask for, how a node reaches the others, and in which container
the ranks run. A run file names none of it, so the same run goes to another cluster with another
site file.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from megatron_msm.config.load import load_config
from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.errors import ConfigError
from slurm.jobs.pass_through import (
    SbatchOptions,
    SrunOptions,
    Word,
    asked_twice,
    asks_for_gpus,
)
from slurm.kinds import KINDS, StageKind

EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

# What a job needs besides the time before SLURM's signal: start, imports, one step, a checkpoint.
_START_S = 120


class Resources(Section):
    """What a job asks SLURM for. A field left out asks for nothing, as in `sbatch`."""

    partition: Word | None = None
    """Queue that the job waits in."""
    account: Word | None = None
    """Whom the time is charged to."""
    qos: Word | None = None
    """Quality of service."""
    constraint: Word | None = None
    """Node features, such as `h100&ib`."""
    reservation: Word | None = None
    """Name of a reservation whose nodes are used."""
    nodelist: Word | None = None
    """Nodes that must be among those used."""
    exclude: Word | None = None
    """Nodes that are not used."""
    exclusive: bool | None = None
    """Share the nodes with no other job."""
    time_min: PositiveInt | None = None
    """Time limit in minutes. A training job saves before it and is requeued."""
    ranks_per_node: PositiveInt | None = None
    """Training ranks of a full node; one GPU each when `gpus` is true."""
    gpus: bool | None = None
    """Ask for one GPU a rank."""
    cpus_per_task: PositiveInt | None = None
    """CPU cores of each rank."""
    mem_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory of each node, in GiB."""
    sbatch: SbatchOptions = Field(default_factory=dict)
    """Further options of sbatch, such as `gres: gpu:h100:8` or `mem-per-cpu: 4G`; true for one
    without a value. Those that ask for GPUs count in `defaults` as `gpus` does."""
    srun: SrunOptions = Field(default_factory=dict)
    """Further options of srun, such as `cpu-bind: none`."""
    gpu_kind: Word | None = None
    """GPUs of those nodes, for estimates, where they are not the site's `gpu_kind`."""


class ContainerConfig(Section):
    """The image that ranks run in. megatron-msm with its `slurm` extra must be importable in it."""

    kind: Literal["pyxis", "apptainer"]
    """pyxis/enroot runs through srun's options; apptainer wraps the Python command."""
    image: Word
    """A .sqsh or .sif file (a path that starts with / or ./), or an image reference."""
    mounts: tuple[Word, ...] = ()
    """Folders to see inside, `OUTSIDE:INSIDE` or one path for both."""
    python: Word = "python3"
    """The interpreter inside the image."""

    @model_validator(mode="after")
    def _file_is_a_path(self) -> Self:
        is_file = self.image.endswith((".sqsh", ".sif"))
        if is_file and not self.image.startswith(("/", "./")):
            raise ValueError(
                f"image {self.image!r}: write a file as a path that starts with / or ./ "
                "(pyxis takes anything else for the name of an image in a registry)"
            )
        return self


class SiteConfig(Section):
    """A whole site.yaml."""

    shared_folder: Path | None = None
    """A folder that all nodes see. When given, runs outside of it are refused."""
    gpu_kind: Word | None = None
    """`a100`, `h100`, `h200` or `b200`, for estimates: a training stage that does not fit into its
    memory is not queued. Left out: nothing is said of memory before a job runs."""
    defaults: Resources = Resources()
    """What every job asks for."""
    stages: dict[StageKind, Resources] = Field(default_factory=dict)
    """Changes for one kind of stage. Kinds that use no GPU take `gpus`, and those of one process
    `exclusive`, from here alone."""
    signal_delay_s: Annotated[int, Field(ge=30)] = 180
    """Seconds before the time limit at which SLURM asks the ranks to save (SIGUSR2)."""
    requeue_limit: Annotated[int, Field(ge=0)] = 10
    """How often a job may start again after preemption or a failing node. Starting again after the
    time limit is not counted."""
    max_running: PositiveInt = 64
    """Most elements of a job array that run at once."""
    max_queued: PositiveInt | None = None
    """Most jobs of yours that wait or run at once, over everything; a QOS may allow no more. The
    rest of an experiment is queued as jobs end, while `msm experiment run` stays."""
    join_evaluations: bool = False
    """The export of an arm and its evaluations are one job, one after the other, which asks for
    what evaluations do: `time_min` is that of all of them."""
    setup: tuple[Word, ...] = ()
    """Lines of shell before the job starts, such as `module load cuda`."""
    environment: dict[EnvironmentName, Word] = Field(default_factory=dict)
    """Variables of the job."""
    interface: Word | None = None
    """Network interface between nodes for NCCL and gloo, as NCCL writes it: `ib0`, the beginnings
    of names (`ib`), those that it is not (`^lo,docker`), or exact names (`=ib0`)."""
    host_suffix: Word | None = None
    """Added to a node's name to reach it by the fast network, where a site has such names."""
    container: ContainerConfig | None = None
    """Left out: ranks run on the nodes themselves."""
    python: Word | None = None
    """Interpreter on the nodes, when no container is used. Left out: the one that submits."""
    mail_user: Word | None = None
    """Address that mail about jobs goes to."""
    mail_type: Word | None = None
    """Events to send mail about, such as `FAIL,END`."""

    @model_validator(mode="after")
    def _signal_leaves_time(self) -> Self:
        for kind in (None, *self.stages):
            where = f"stages.{kind}" if kind else "defaults"
            if (problem := self.problem(self.resources(kind))) is not None:
                raise ValueError(f"{where}.{problem}")
        return self

    def problem(self, resources: Resources) -> str | None:
        """Return what is wrong with what a stage asks for, or None."""
        twice = asked_twice(resources.sbatch, resources.model_dump())
        if twice is not None:
            return twice
        time_min = resources.time_min
        if time_min is None or time_min * 60 > self.signal_delay_s + _START_S:
            return None
        return (
            f"time_min {time_min} leaves no time to work: SLURM's signal comes signal_delay_s "
            f"{self.signal_delay_s} s before the limit, and a start takes up to {_START_S} s"
        )

    def check_shared(self, path: Path, field: str) -> None:
        """Refuse a path that not every node sees.

        Raises:
            ConfigError: It is not below `shared_folder`.
        """
        folder = self.shared_folder
        if folder is not None and not path.absolute().is_relative_to(folder.absolute()):
            raise ConfigError(
                f"{field}: {path} is not in the site's shared_folder {folder}, so not every node "
                f"would see it. Choose an `{field}` below it."
            )

    def resources(self, kind: StageKind | None, changes: Resources | None = None) -> Resources:
        """Return what a stage asks for: the defaults with the kind's changes, and its own.

        An HTML file needs no exclusive node with eight GPUs for a day: see `slurm.kinds`.
        """
        if kind is None:
            return self.defaults
        known, asked = KINDS[kind], self.defaults.model_dump(exclude_none=True)
        if not known.uses_gpus:
            options = asked["sbatch"].items()
            asked["sbatch"] = {n: value for n, value in options if not asks_for_gpus(n, value)}
        asked |= {} if known.uses_gpus else {"gpus": False}
        asked |= {} if known.has_ranks else {"exclusive": False}
        if known.most_time_min and "time_min" in asked:
            asked["time_min"] = min(asked["time_min"], known.most_time_min)
        for each in (self.stages.get(kind), changes):
            if each is not None:
                options = {name: asked[name] | getattr(each, name) for name in ("sbatch", "srun")}
                asked |= each.model_dump(exclude_none=True) | options
        return Resources(**asked)


def load_site(path: Path | None) -> SiteConfig:
    """Read a site file; without one, jobs ask SLURM for nothing special.

    Raises:
        ConfigError: The file cannot be read, or a field is unknown or wrong.
    """
    return SiteConfig() if path is None else load_config(path, SiteConfig)
