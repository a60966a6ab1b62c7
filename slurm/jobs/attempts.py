"""What became of each attempt of a job: one small file an attempt, in the job's folder.

The first rank that ends other than well writes it; ranks that are taken down with it come later and
find it written. So the file holds the cause, and exactly one rank asks for a requeue.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import orjson
from pydantic import Field

from megatron_msm.config.section import Section
from slurm.jobs.failures import Failure, Kind

_FOLDER = "attempts"


class Attempt(Section):
    """How one attempt ended."""

    job_id: str
    restart: int = 0
    """How often SLURM had started the job before."""
    rank: int = 0
    """The rank that ended first."""
    host: str = ""
    status: int
    """Exit status; negative for a signal."""
    seconds: float = 0.0
    ended_unix_s: float = Field(default_factory=time.time)
    kind: Kind | None = None
    """What it died of; None when it ended well."""
    reason: str = ""
    will_restart: bool = False
    tail: tuple[str, ...] = ()
    """The last lines of its output."""

    @property
    def failure(self) -> Failure | None:
        """The cause, with its remedy."""
        return None if self.kind is None else Failure(self.kind, self.reason)


def record_attempt(folder: Path, attempt: Attempt) -> Attempt:
    """Write the attempt's end unless another rank has; return what is written."""
    path = folder / _FOLDER / f"{attempt.job_id}.{attempt.restart}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".tmp-{path.name}.{attempt.rank}")
    tmp.write_bytes(orjson.dumps(attempt.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
    try:
        path.hardlink_to(tmp)  # atomic on NFS too, and never over an earlier file
    except FileExistsError:
        return Attempt.model_validate(orjson.loads(path.read_bytes()))
    finally:
        tmp.unlink()
    return attempt


def read_attempts(folder: Path) -> Sequence[Attempt]:
    """Return the attempts of a job, oldest first."""
    paths = (folder / _FOLDER).glob("[!.]*.json")
    attempts = [Attempt.model_validate(orjson.loads(path.read_bytes())) for path in paths]
    return sorted(attempts, key=lambda attempt: attempt.ended_unix_s)
