"""`msm submit`: one training run as a SLURM job, one task per rank."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from megatron_msm.config.load import dump_config, load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.errors import CheckpointError, ConfigError
from megatron_msm.formats.checkpoint_folder import RUN_FILE
from megatron_msm.formats.files import write_text_atomic
from megatron_msm.next_step import tell_next
from megatron_msm.train.checks import checked_run
from megatron_msm.train.summary import describe
from slurm.jobs.backends import SlurmBackend
from slurm.jobs.job import Job
from slurm.jobs.queue import check_dependency
from slurm.jobs.sbatch import num_gpus, render_script
from slurm.jobs.site import SiteConfig, load_site
from slurm.jobs.submitted import locked, read_submitted


def submit(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run's configuration.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As given to `msm train`.")
    ] = None,
    *,
    site: Annotated[
        Path | None, typer.Option(metavar="SITE.yaml", help="The cluster's facts.")
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JOB[:ok|:any]",
            help="Start when this job has ended well, or with `:any` however it ends; repeat it.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The job's name; else the run folder's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the batch script; needs no SLURM.")
    ] = False,
) -> None:
    """Train RUN.yaml on a cluster: checked here, queued, requeued until it is finished.

    Example: msm submit run.yaml --site site.yaml --dry-run
    """
    site_config = load_site(site)
    config = load_config(run_file, RunConfig, overrides or ())
    site_config.check_shared(config.out, "out")
    job = training_job(config, site_config, name=name)
    earlier = [_dependency(text) for text in after or ()]
    if dry_run:
        typer.echo(render_script(job, site_config, after=earlier))
        return
    waits_for = _still_waited_for(earlier)
    _check_run(config, waits_for)
    job_id = _submit_once(config, job, site_config, waits_for)
    typer.echo(f"submitted  job {job_id}, {job.name}, {job.num_ranks} ranks")
    tell_next("msm", "logs", job_id, "--folder", job.folder)


def training_job(config: RunConfig, site: SiteConfig, *, name: str | None = None) -> Job:
    """Return the job that trains a run; its folder lies in the run's."""
    out = config.out.absolute()
    return Job(
        name=name or out.name,
        kind="train",
        module="megatron_msm.cli",
        arguments=("train", str(out / RUN_FILE)),
        cwd=Path.cwd(),
        reads=_paths_in(config.model_dump(exclude={"out"})),
        num_gpus=num_gpus(site.resources("train"), config.parallel.world_size),
        folder=out / "slurm",
        num_ranks=config.parallel.world_size,
        requeue_limit=site.requeue_limit,
        time_min=site.resources("train").time_min,
        signal_delay_s=site.signal_delay_s,
    )


def _paths_in(content: object) -> tuple[Path, ...]:
    """Return every path of a configuration, absolute."""
    if isinstance(content, Path):
        return (content.absolute(),)
    if isinstance(content, Mapping):
        content = tuple(content.values())
    children = content if isinstance(content, tuple | list) else ()
    return tuple(path for child in children for path in _paths_in(child))


def _dependency(text: str) -> str:
    """Return `JOB` of `JOB` or `JOB:ok`, and `JOB:any` as it is."""
    job, _, how = text.partition(":")
    if not re.fullmatch(r"\d+(_\d+)?", job) or how not in ("", "ok", "any"):
        raise ConfigError(f"--after {text}: write the number of a job, JOB, JOB:ok or JOB:any.")
    return f"{job}:any" if how == "any" else job


def _still_waited_for(after: list[str]) -> list[str]:
    return [
        job
        for job in after
        if check_dependency(job.removesuffix(":any"), any_end=job.endswith(":any"))
    ]


def _check_run(config: RunConfig, waits_for: list[str]) -> None:
    """Find what is wrong before the job waits in the queue for hours."""
    try:
        lines = list(describe(checked_run(config)))
    except CheckpointError as error:
        if not waits_for:
            raise
        jobs = ", ".join(waits_for)
        lines = [f"not checked before job {jobs} has ended: {error}"]
    for line in lines:
        typer.echo(line)


def _submit_once(config: RunConfig, job: Job, site: SiteConfig, after: list[str]) -> str:
    """Submit unless a job of this run waits or runs already."""
    backend = SlurmBackend(site)
    job.folder.mkdir(parents=True, exist_ok=True)
    with locked(job.folder):
        earlier = read_submitted(job.folder)
        if earlier is not None and earlier.is_live():
            raise ConfigError(
                f"{config.out}: job {earlier.job_id} of this run waits or runs already. "
                f"Cancel it first (scancel {earlier.job_id}), or choose another `out`."
            )
        write_text_atomic(config.out / RUN_FILE, dump_config(config))
        [submitted] = backend.submit([job], after=after)
    return submitted.job_id
