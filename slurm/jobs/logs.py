"""`msm logs`: what SLURM says of a job, where the logs of all ranks are, and how they end."""

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from megatron_msm.errors import ConfigError
from megatron_msm.next_step import tell_next
from slurm.jobs.queue import query_jobs
from slurm.jobs.submitted import SUBMITTED_FILE, read_submitted

_RANK_LOG = re.compile(r"^(?P<job>.+)_(?P<rank>\d+)_log\.out$")


def logs(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or a folder of it.")],
    *,
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to look: a run's or an experiment's folder.")
    ] = Path(),
    lines: Annotated[
        int, typer.Option(metavar="N", min=0, help="Last lines of each rank to show.")
    ] = 5,
) -> None:
    """Show SLURM's state of a job, the logs of its ranks and their last lines.

    Example: msm logs 4711 --folder runs/msm
    """
    states = _states(job)
    for state in states:
        typer.echo(state)
    found = find_logs(job, folder)
    if not found and not states:
        raise ConfigError(
            f"{job}: no logs of this job below {folder.absolute()}. Give the run's or the "
            "experiment's folder as --folder."
        )
    for path in found:
        typer.echo(str(path))
        for line in last_lines(path, lines):
            typer.echo(f"  {line}")
    if found:
        tell_next("less", found[0])


def _states(job: str) -> list[str]:
    """Return what SLURM says of a job or of those of a folder; nothing where there is no SLURM."""
    if shutil.which("squeue") is None:
        return []
    ids = _jobs_below(Path(job)) if Path(job).is_dir() else [job]
    known = query_jobs(ids)
    return [
        f"job {job_id}  {found.state}  {found.reason or found.nodes}".rstrip()
        for job_id, found in known.items()
    ]


def _jobs_below(folder: Path) -> list[str]:
    """Return the newest SLURM job of each folder that has one."""
    started = (read_submitted(path.parent) for path in sorted(folder.rglob(SUBMITTED_FILE)))
    return list({job.job_id: None for job in started if job and job.backend == "slurm"})


def find_logs(job: str, folder: Path) -> list[Path]:
    """Return a job's logs by rank; a folder as the job means every job in it."""
    base, wanted = (Path(job), None) if Path(job).is_dir() else (folder, job)
    found = []
    for path in base.rglob("*_log.out"):
        match = _RANK_LOG.match(path.name)
        if match and wanted in (None, match["job"]):
            found.append((str(path.parent), match["job"], int(match["rank"]), path))
    return [path for *_, path in sorted(found)]


def last_lines(path: Path, lines: int) -> list[str]:
    """Return the last lines, reading at most the file's last 64 KiB."""
    if lines == 0:
        return []
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - (64 << 10), 0))
        return file.read().decode(errors="replace").splitlines()[-lines:]
