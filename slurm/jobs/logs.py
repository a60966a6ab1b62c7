"""`msm logs`: where the logs of all ranks are, and how they end."""

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from megatron_msm.errors import ConfigError
from megatron_msm.next_step import tell_next
from slurm.jobs.queue import query_jobs

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
    state = _state(job)
    if state:
        typer.echo(state)
    found = find_logs(job, folder)
    if not found and not state:
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


def _state(job: str) -> str:
    """Return what SLURM says of a job and why it waits; nothing where there is no SLURM."""
    if Path(job).is_dir() or shutil.which("squeue") is None:
        return ""

    known = query_jobs([job]).get(job)
    if known is None:
        return ""
    return f"job {job}  {known.state}  {known.reason or known.nodes}".rstrip()


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
