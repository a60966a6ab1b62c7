"""A job as SLURM sees it: submitit's parameters, and by them the text of the batch script.

The script's last lines hand a requeue on to SLURM. A rank cannot: in a container there is no
`scontrol`, and a rank that requeues takes the others down before they have saved.
"""

import re
import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit.core import core
from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor, SlurmJob, _make_sbatch_string

from megatron_msm.errors import ConfigError
from megatron_msm.own_packages import SAFE_PATH
from slurm.jobs.job import Job
from slurm.jobs.pass_through import as_arguments, gpus_asked_for
from slurm.jobs.rendezvous import HOST_SUFFIX
from slurm.jobs.site import ContainerConfig, Resources, SiteConfig
from slurm.jobs.worker import REQUEUE_MARKER

_MARKER = "export {name}={folder}/requeue_${{SLURM_JOB_ID}}_${{SLURM_RESTART_COUNT:-0}}"
# `mv` succeeds once, so one attempt requeues once. SLURM ends the script's processes as soon as it
# requeues; without the trap the delay would never be set.
_REQUEUE = """\
rc=$?
if mv "${name}" "${name}.done" 2>/dev/null; then
    trap '' TERM
    scontrol requeue "$SLURM_JOB_ID"
    scontrol update "jobid=$SLURM_JOB_ID" "starttime=now+$(cat "${name}.done")"
fi
exit $rc"""
# A rendezvous that this job inherits belongs to another one; what follows may give its own.
_FORGET = "unset MASTER_ADDR MASTER_PORT"
# Known to newer SLURM versions; the limit may be the partition's, which no site file names.
_END_TIME = """\
MSM_END=$(squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null)
if [ -n "$MSM_END" ]; then
    export SLURM_JOB_END_TIME="${SLURM_JOB_END_TIME:-$(date -d "$MSM_END" +%s 2>/dev/null)}"
fi"""
_SETUP_BEGINS = """trap 'echo "error: setup failed in: $MSM_SETUP" >&2' EXIT"""
_SETUP_ENDS = "trap - EXIT"
_PERCENT = "\ue000"
_REPLACED = re.compile("%[jtAa]")


def build_executor(job: Job, site: SiteConfig, *, after: Sequence[str] = ()) -> SlurmExecutor:
    """Return submitit's executor with everything that the job and the site ask for.

    Args:
        job: What runs.
        site: The cluster.
        after: Ids of jobs that must have ended well before.

    Raises:
        ConfigError: The ranks cannot be spread evenly over nodes, or submitit would take part of
            the folder's name for a job's number, or the container does not show what the job needs.
    """
    if _REPLACED.search(str(job.folder)):
        raise ConfigError(
            f"{job.folder}: submitit replaces %j, %t, %A and %a in paths. Choose another folder."
        )
    if site.container is not None:
        _check_mounts(job, site.container)
    executor = _Executor(logs_folder(job.folder), python=_python(site))
    executor.update_parameters(**_parameters(job, site, after))
    return executor


def render_script(job: Job, site: SiteConfig, *, after: Sequence[str] = ()) -> str:
    """Return the batch script; needs no cluster."""
    executor = build_executor(job, site, after=after)
    return str(executor._make_submission_file_text(executor._submitit_command_str, ""))


def logs_folder(folder: Path) -> Path:
    """Return where submitit puts a job's logs, scripts and pickles."""
    return folder / "logs"


class _Executor(SlurmExecutor):
    """submitit's for one submission; made on machines without SLURM too, to show its script."""

    @classmethod
    def affinity(cls) -> int:
        return 2

    def _internal_process_submissions(
        self, delayed_submissions: list[DelayedSubmission]
    ) -> list[core.Job[Any]]:
        # submitit hands an array on to an executor of its own class, whose script breaks at a %.
        if len(delayed_submissions) == 1:
            return super()._internal_process_submissions(delayed_submissions)
        self.folder.mkdir(parents=True, exist_ok=True)
        pickles = [self.folder / f"{uuid.uuid4().hex}.pkl" for _ in delayed_submissions]
        for element, path in zip(delayed_submissions, pickles, strict=True):
            element.dump(path)
        self.parameters["map_count"] = len(pickles)
        array = self._submit_command(self._submitit_command_str).job_id
        jobs = [SlurmJob[Any](self.folder, f"{array}_{place}") for place in range(len(pickles))]
        for job, path in zip(jobs, pickles, strict=True):
            job.paths.move_temporary_file(path, "submitted_pickle")
        return list(jobs)

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        # SLURM takes a % in the path of a log for the start of a pattern, unless it is doubled.
        logs = str(self.folder).replace("%", _PERCENT)
        text = _make_sbatch_string(command=command, folder=logs, **self.parameters)
        return text.replace(_PERCENT, "%%")


def _dependency(after: Sequence[str]) -> str | None:
    """Return SLURM's words for jobs to start after, each `JOB` or, however it ends, `JOB:any`."""
    well = [job for job in after if not job.endswith(":any")]
    anyhow = [job.removesuffix(":any") for job in after if job.endswith(":any")]
    parts = [
        f"{word}:{':'.join(jobs)}"
        for word, jobs in (("afterok", well), ("afterany", anyhow))
        if jobs
    ]
    return ",".join(parts) or None


def _parameters(job: Job, site: SiteConfig, after: Sequence[str]) -> dict[str, object]:
    resources = site.resources(job.kind, job.changes)
    num_nodes, tasks_per_node = node_shape(job.num_ranks or 1, resources)
    others = {
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        "chdir": str(job.cwd),
        "reservation": resources.reservation,
        **resources.sbatch,
    }
    asked = {
        "job_name": job.name,
        "nodes": num_nodes,
        "ntasks_per_node": tasks_per_node,
        "gpus_per_node": tasks_per_node if resources.gpus else None,
        "mem": None if resources.mem_gib is None else f"{int(resources.mem_gib * 1024)}M",
        "dependency": _dependency(after),
        "exclusive": resources.exclusive or None,
        "mail_user": site.mail_user,
        "mail_type": site.mail_type,
        "setup": _setup(job, site),
        "teardown": _REQUEUE.format(name=REQUEUE_MARKER).splitlines(),
        "srun_args": _srun_arguments(job, site, resources),
        "additional_parameters": {k: v for k, v in others.items() if v is not None},
        "array_parallelism": site.max_running,
    }
    same = ("partition", "account", "qos", "constraint", "nodelist", "exclude", "cpus_per_task")
    asked |= {name: getattr(resources, name) for name in same}
    return {
        **{name: value for name, value in asked.items() if value is not None},
        # submitit's own would be five minutes: a limit that nobody asked for.
        "time": resources.time_min,
        # Not submitit's own accounting key: clusters that check keys refuse it.
        "wckey": None,
        "signal_delay_s": site.signal_delay_s,
        "stderr_to_stdout": True,
    }


def node_shape(num_tasks: int, resources: Resources) -> tuple[int, int]:
    """Return (nodes, tasks on each).

    Raises:
        ConfigError: The tasks do not fill whole nodes.
    """
    per_node = min(resources.ranks_per_node or num_tasks, num_tasks)
    if num_tasks % per_node:
        raise ConfigError(
            f"parallel: {num_tasks} ranks do not fill nodes of ranks_per_node {per_node} (site "
            "file). Change the layout, or ranks_per_node to a divisor of the ranks."
        )
    return num_tasks // per_node, per_node


def num_gpus(resources: Resources, num_tasks: int) -> int:
    """Return how many GPUs a job of so many tasks asks for.

    Raises:
        ConfigError: The tasks do not fill whole nodes.
    """
    nodes, _ = node_shape(num_tasks, resources)
    return num_tasks if resources.gpus else gpus_asked_for(resources.sbatch, nodes, num_tasks)


def _setup(job: Job, site: SiteConfig) -> list[str]:
    variables = dict(site.environment)
    if site.interface:
        variables |= {"NCCL_SOCKET_IFNAME": site.interface}
    if site.host_suffix:
        variables |= {HOST_SUFFIX: site.host_suffix}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    marker = _MARKER.format(name=REQUEUE_MARKER, folder=shlex.quote(str(logs_folder(job.folder))))
    return [_FORGET, *_checked_lines(site.setup), *exports, _END_TIME, marker]


def _checked_lines(lines: Sequence[str]) -> list[str]:
    """Return lines of shell that end the job where one fails, naming it."""
    if not lines:
        return []
    checked = [
        part
        for line in lines
        for part in (f"MSM_SETUP={shlex.quote(line)}", line, "[ $? -eq 0 ] || exit 2")
    ]
    return [_SETUP_BEGINS, *checked, _SETUP_ENDS]


def _srun_arguments(job: Job, site: SiteConfig, resources: Resources) -> list[str]:
    # Sites that start jobs with --export=NONE would keep the script's variables from the ranks.
    arguments = ["--kill-on-bad-exit=1", "--export=ALL"]
    if resources.cpus_per_task:
        arguments.append(f"--cpus-per-task={resources.cpus_per_task}")
    container = site.container
    if container is not None and container.kind == "pyxis":
        arguments += [
            f"--container-image={container.image}",
            f"--container-workdir={job.cwd}",
            "--no-container-mount-home",
        ]
        if container.mounts:
            arguments.append(f"--container-mounts={','.join(container.mounts)}")
    return [*arguments, *as_arguments(resources.srun)]


def _check_mounts(job: Job, container: ContainerConfig) -> None:
    """Refuse a job whose files and folders are not seen in its container."""
    seen = [Path(inside) for m in container.mounts if (inside := _same_inside(m)) is not None]
    if any("$" in mount for mount in container.mounts):
        return
    if container.kind == "apptainer":  # what it shows of itself
        seen += [Path.home(), job.cwd, Path("/tmp"), Path("/var/tmp")]
    given = (Path(argument) for argument in job.arguments if argument.startswith("/"))
    for path in (job.cwd, job.folder, *given, *job.reads):
        if not any(path.is_relative_to(folder) for folder in seen):
            raise ConfigError(
                f"container.mounts: the job needs {path}, and no mount shows it under the same "
                f"name in the container. Add its folder, such as {path.parent}:{path.parent}."
            )


def _same_inside(mount: str) -> str | None:
    """Return the folder that a mount shows under its own name; None for another name."""
    outside, *rest = mount.split(":")
    return outside if not rest or rest[0] == outside else None


def _python(site: SiteConfig) -> str:
    """Return the command that starts Python on a node, as shell text."""
    container = site.container
    if container is None:
        return f"{shlex.quote(site.python or sys.executable)} {SAFE_PATH}"
    if container.kind == "pyxis":
        return f"{shlex.quote(container.python)} {SAFE_PATH}"
    binds = [option for mount in container.mounts for option in ("--bind", mount)]
    command = ["apptainer", "exec", "--nv", *binds, container.image, container.python, SAFE_PATH]
    return shlex.join(command)
