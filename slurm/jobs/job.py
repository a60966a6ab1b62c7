"""A job as a file: which module to run, with which arguments, and how often it may start again.

What travels to a compute node is the path of this file. Training state never does: a job that
starts again finds its newest checkpoint itself.
"""

from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field, ValidationError

from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_json_atomic
from slurm.jobs.site import Resources
from slurm.kinds import StageKind

JOB_FILE = "job.json"


class Job(Section):
    """The content of job.json: one `python -m MODULE ARGUMENT...`."""

    name: str
    kind: StageKind
    changes: Resources | None = None
    """What it asks for beyond the site file."""
    module: str
    """Run as `python -m MODULE`."""
    arguments: tuple[str, ...] = ()
    """Command line arguments of the module."""
    cwd: Path
    """Where relative paths start."""
    folder: Path
    """Holds this file, the logs and what became of each attempt. Absolute."""
    reads: tuple[Path, ...] = ()
    """Files and folders from elsewhere that it reads: datasets, models. Absolute."""
    num_gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs that it holds while it runs, as far as it asks for them."""
    num_ranks: PositiveInt | None = None
    """Training ranks; None for a job of one process that joins no process group."""
    requeue_limit: int = 0
    time_min: PositiveInt | None = None
    """Time limit, to tell its signal from a preemption's."""
    signal_delay_s: int = 0

    @property
    def path(self) -> Path:
        """Where the job's file lies."""
        return self.folder / JOB_FILE


def write_job(job: Job) -> None:
    """Write the job's file into its folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(job.path, job.model_dump(mode="json"))


def read_job(path: Path) -> Job:
    """Read a job file.

    Raises:
        ConfigError: There is none, or it is no job.
    """
    try:
        return Job.model_validate(orjson.loads(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise ConfigError(f"{path}: not a job file: {error}. Submit the job again.") from None
