"""The job wrapper on a real SLURM: ranks over nodes, requeue after status 75, failures, limits.

The ranks count instead of training; `test_slurm_training.py` trains.
"""

import socket
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from megatron_msm.errors import ConfigError
from megatron_msm.formats.lock_file import this_process
from megatron_msm.train.ranks.run_lock import LOCK_FILE, run_lock
from slurm.jobs.attempts import read_attempts
from slurm.jobs.backends import SlurmBackend
from slurm.jobs.job import Job
from slurm.jobs.queue import check_dependency
from slurm.jobs.site import Resources, SiteConfig
from tests.integration.slurm_cluster import SlurmCluster, wait_for
from tests.integration.training_runs import msm

REPOSITORY = Path(__file__).parents[2]
SITE = SiteConfig(
    defaults=Resources(ranks_per_node=2, cpus_per_task=1, time_min=60), signal_delay_s=30
)
HIGH = SITE.model_copy(
    update={"defaults": SITE.defaults.model_copy(update={"partition": "high", "exclusive": True})}
)


def counting_job(
    folder: Path,
    *,
    steps: int = 100_000,
    step_s: float = 0.05,
    limit: int = 3,
    ranks: int = 4,
) -> Job:
    return Job(
        name="count",
        kind="train",
        module="tests.integration.slurm_counter",
        arguments=(str(folder / "state"), str(steps), str(step_s)),
        cwd=REPOSITORY,
        folder=folder / "job",
        num_ranks=ranks,
        requeue_limit=limit,
        time_min=60,
        signal_delay_s=30,
    )


def submitted(job: Job, site: SiteConfig = SITE, *after: str) -> str:
    [started] = SlurmBackend(site).submit([job], after=after)
    return started.job_id


def counts(job: Job, name: str = "rank") -> list[str]:
    state = Path(job.arguments[0])
    return [(state / f"{name}_{r}").read_text() for r in range(job.num_ranks or 1)]


def wait_counting(job: Job, restarts: int = 0) -> None:
    """Wait until every rank has begun to count in this start of the job."""
    state = Path(job.arguments[0])

    def all_count() -> bool:
        starts = [state / f"starts_{r}" for r in range(job.num_ranks or 1)]
        return all(p.exists() and p.read_text().count("\n") == restarts + 1 for p in starts)

    wait_for(all_count, 180)


def test_ranks_run_over_two_nodes_and_end_well(cluster: SlurmCluster, tmp_path: Path) -> None:
    job = counting_job(tmp_path / "with a space", steps=3)
    job_id = submitted(job)
    SlurmBackend(SITE).wait(job_id)
    assert cluster.field(job_id, "JobState") == "COMPLETED"
    assert cluster.field(job_id, "NumNodes") == "2"
    assert counts(job) == ["3"] * 4
    [attempt] = read_attempts(job.folder)
    assert (attempt.kind, attempt.status) == (None, 0)
    assert len(list((job.folder / "logs").glob(f"{job_id}_*_log.out"))) == 4


@pytest.mark.slow
def test_preempted_by_a_higher_partition_saves_and_goes_on(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    low = counting_job(tmp_path / "low")
    low_id = submitted(low)
    wait_counting(low)
    high = counting_job(tmp_path / "high", steps=2, ranks=6)
    high_id = submitted(high, HIGH)

    assert cluster.wait_state(high_id, "COMPLETED", "FAILED") == "COMPLETED"
    cluster.wait_restart(low_id)
    wait_counting(low, restarts=1)
    cluster.run("scancel", low_id)

    assert cluster.field(low_id, "Restarts") == "1"
    [first] = [a for a in read_attempts(low.folder) if a.restart == 0]
    assert (first.kind, first.status, first.will_restart) == ("preempted", 75, True)
    for starts, saved in zip(counts(low, "starts"), counts(low), strict=True):
        assert starts.splitlines() == ["0", saved] or int(saved) >= int(starts.splitlines()[1]) > 0


@pytest.mark.slow
def test_requeued_by_hand_saves_and_goes_on_once(cluster: SlurmCluster, tmp_path: Path) -> None:
    job = counting_job(tmp_path)
    job_id = submitted(job)
    wait_counting(job)
    cluster.run("scontrol", "requeue", job_id)
    cluster.wait_restart(job_id)
    wait_counting(job, restarts=1)
    assert cluster.field(job_id, "Restarts") == "1"
    cluster.run("scancel", job_id)
    assert all(int(starts.splitlines()[1]) > 0 for starts in counts(job, "starts"))


@pytest.mark.slow
def test_asked_to_stop_more_often_than_the_limit_ends(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    job = counting_job(tmp_path, limit=1)
    job_id = submitted(job)
    wait_counting(job)
    cluster.run("scancel", "--signal=USR2", job_id)
    cluster.wait_restart(job_id)
    wait_counting(job, restarts=1)
    cluster.run("scancel", "--signal=USR2", job_id)
    assert cluster.wait_state(job_id, "FAILED", "PENDING") == "FAILED"
    attempts = read_attempts(job.folder)
    assert [attempt.will_restart for attempt in attempts] == [True, False]
    assert cluster.field(job_id, "Restarts") == "1"


@pytest.mark.slow
def test_time_limit_is_no_restart_that_counts(cluster: SlurmCluster, tmp_path: Path) -> None:
    """The shortest limit that SLURM has; a site file would refuse it."""
    site = SITE.model_copy(update={"defaults": SITE.defaults.model_copy(update={"time_min": 1})})
    # SLURM may send the signal seconds after the start, so the counting is quick.
    job = counting_job(tmp_path, step_s=0.01, limit=0).model_copy(update={"time_min": 1})
    job_id = submitted(job, site)
    cluster.wait_restart(job_id)
    wait_counting(job, restarts=1)
    cluster.run("scancel", job_id)
    assert read_attempts(job.folder)[0].kind == "time-limit"
    assert all(int(starts.splitlines()[1]) > 100 for starts in counts(job, "starts"))


SHOW = """
import json, os, pathlib, sys
wanted = ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME", "SLURM_MEM_PER_CPU", "GIVEN")
shown = {name: os.environ.get(name) for name in wanted}
pathlib.Path(sys.argv[1]).write_text(json.dumps(shown))
"""


def showing_job(folder: Path) -> Job:
    """A job that writes down some of its environment."""
    folder.mkdir(parents=True)
    (folder / "show.py").write_text(SHOW)
    job = counting_job(folder, ranks=1)
    changes = {"module": "show", "arguments": (str(folder / "shown.json"),), "cwd": folder}
    return job.model_copy(update=changes)


def test_launch_survives_the_site(
    cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From inside a job with other memory words, into a folder with %, with the site's own port."""
    for name, value in (
        ("SLURM_JOB_ID", "77"),
        ("SLURM_MEM_PER_CPU", "100"),
        ("SLURM_EXPORT_ENV", "NONE"),
        ("SBATCH_PARTITION", "of-the-outer-job"),
        ("MASTER_ADDR", "of-the-outer-job"),
    ):
        monkeypatch.setenv(name, value)
    site = SITE.model_copy(
        update={
            "defaults": SITE.defaults.model_copy(update={"mem_gib": 1.0}),
            "environment": {
                "MASTER_PORT": "23456",
                "GIVEN": "by the site",
                "PYTHONPATH": str(tmp_path / "100% of 5%x"),
            },
            "setup": ("export GIVEN=first", "true"),
            "interface": "^docker",
        }
    )
    job = showing_job(tmp_path / "100% of 5%x")
    job_id = submitted(job, site)
    assert cluster.wait_state(job_id, "COMPLETED", "FAILED") == "COMPLETED"
    shown = orjson.loads((tmp_path / "100% of 5%x" / "shown.json").read_bytes())
    assert (shown["MASTER_PORT"], shown["GIVEN"]) == ("23456", "by the site")
    assert shown["MASTER_ADDR"] not in (None, "of-the-outer-job")
    assert shown["SLURM_MEM_PER_CPU"] is None
    assert shown["GLOO_SOCKET_IFNAME"] in {name for _, name in socket.if_nameindex()}
    assert (job.folder / "logs" / f"{job_id}_0_log.out").exists()


NOT_STARTED: dict[str, tuple[dict[str, Any], str]] = {
    "setup line": (
        {"setup": ("true", "module load cuda 2>/dev/null", "echo later")},
        "module load",
    ),
    "exit in setup": ({"setup": ("false || exit 3", "echo later")}, "false || exit 3"),
    "interface": ({"interface": "ib7"}, "interface 'ib7'"),
    "python": ({"python": "/no/such/python"}, "/no/such/python"),
}


def test_what_ends_a_job_before_it_starts_is_named(cluster: SlurmCluster, tmp_path: Path) -> None:
    jobs = {}
    for number, (changes, _) in enumerate(NOT_STARTED.values()):
        job = showing_job(tmp_path / str(number))
        jobs[submitted(job, SITE.model_copy(update=changes))] = job
    for (job_id, job), (_, expected) in zip(jobs.items(), NOT_STARTED.values(), strict=True):
        assert cluster.wait_state(job_id, "FAILED", "COMPLETED") == "FAILED"
        log = (job.folder / "logs" / f"{job_id}_0_log.out").read_text()
        assert expected in log
        assert "later" not in log
        assert not (job.cwd / "shown.json").exists()


def test_dependencies_are_looked_up_before_they_are_handed_over(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    (tmp_path / "fails.py").write_text("import sys; sys.exit(1)")
    job = counting_job(tmp_path / "fails", ranks=1).model_copy(
        update={"module": "fails", "arguments": (), "cwd": tmp_path}
    )
    job_id = submitted(job)
    after = submitted(counting_job(tmp_path / "any", steps=1, ranks=1), SITE, f"{job_id}:any")
    assert cluster.wait_state(job_id, "FAILED", "COMPLETED") == "FAILED"
    with pytest.raises(ConfigError, match="has ended as FAILED"):
        check_dependency(job_id, any_end=False)
    assert check_dependency(job_id, any_end=True) is False
    with pytest.raises(ConfigError, match="knows no such job"):
        check_dependency("999999", any_end=True)
    assert cluster.wait_state(after, "COMPLETED", "FAILED") == "COMPLETED"
    shown = msm("logs", after, "--folder", str(tmp_path), cwd=tmp_path)
    assert shown.stdout.startswith(f"job {after}  COMPLETED")


def test_a_lock_on_another_machine_is_taken_over_when_its_job_has_ended(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    """The name of the machine is made up; job and cluster are real."""
    job = counting_job(tmp_path, ranks=1)
    job_id = submitted(job)
    wait_counting(job)
    changes = {"host": "node7", "machine": "another", "job": job_id, "cluster": "msm"}
    left = this_process().model_copy(update=changes).model_dump()
    (tmp_path / LOCK_FILE).write_bytes(orjson.dumps(left))
    with pytest.raises(ConfigError, match=f"SLURM job {job_id} on node7"), run_lock(tmp_path):
        pass
    cluster.run("scancel", job_id)
    assert cluster.wait_state(job_id, "CANCELLED") == "CANCELLED"
    wait_for(lambda: cluster.run("squeue", "-h", "-j", job_id) == "", 120)
    with run_lock(tmp_path):
        pass
    assert not (tmp_path / LOCK_FILE).exists()


CRASHES = {
    "configuration": ("import sys; sys.stderr.write('error: bad\\n'); sys.exit(2)", "error: bad"),
    "python": ("raise KeyError('w')", "KeyError: 'w'"),
    "gpu-memory": (
        "raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')",
        "CUDA out of memory",
    ),
    "disk-full": ("raise OSError(28, 'No space left on device')", "No space left"),
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
}


def test_failures_are_named_not_retried_and_stop_what_waits_for_them(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    jobs = {}
    # A job does not look for modules in its working directory.
    site = SITE.model_copy(update={"environment": {"PYTHONPATH": str(tmp_path)}})
    for kind, (program, _) in CRASHES.items():
        (tmp_path / f"crash_{kind.replace('-', '_')}.py").write_text(program)
        job = counting_job(tmp_path / kind, ranks=1).model_copy(
            update={"module": f"crash_{kind.replace('-', '_')}", "arguments": (), "cwd": tmp_path}
        )
        jobs[kind] = (job, submitted(job, site))
    waiting = submitted(counting_job(tmp_path / "after", steps=1), SITE, jobs["python"][1])
    other = submitted(counting_job(tmp_path / "other", steps=1))

    for kind, (job, job_id) in jobs.items():
        assert cluster.wait_state(job_id, "FAILED", "COMPLETED") == "FAILED"
        [attempt] = read_attempts(job.folder)
        assert attempt.kind == kind
        assert CRASHES[kind][1] in attempt.reason
        assert not attempt.will_restart
    assert cluster.wait_state(waiting, "CANCELLED", "FAILED", "COMPLETED") == "CANCELLED"
    assert cluster.wait_state(other, "COMPLETED", "FAILED") == "COMPLETED"


def test_arrays_are_as_large_as_the_cluster_allows(cluster: SlurmCluster, tmp_path: Path) -> None:
    """In a folder with %, which SLURM takes for a pattern in the path of a log."""
    folder = tmp_path / "100% of 5%x"
    jobs = [counting_job(folder / str(n), steps=2, ranks=1) for n in range(5)]
    started = SlurmBackend(SITE.model_copy(update={"max_running": 4})).submit(jobs)
    ids = [each.job_id for each in started]
    first = ids[0].partition("_")[0]
    assert ids[:4] == [f"{first}_{n}" for n in range(4)]
    # Members of an array that have started took job ids of their own: the next is not first + 1.
    assert int(ids[4]) > int(first)
    scripts = [path.read_text() for path in tmp_path.rglob("*_submission.sh")]
    assert sorted("--array=" in script for script in scripts) == [False, True]
    assert any("--array='0-3%2'" in script or "--array=0-3%2" in script for script in scripts)
    wait_for(lambda: all(read_attempts(job.folder) for job in jobs), 240)
    assert [counts(job) for job in jobs] == [["2"]] * 5
    logs = [(ids[n], jobs[n // 4 * 4].folder / "logs" / f"{ids[n]}_0_log.out") for n in range(5)]
    assert [job_id for job_id, log in logs if not log.exists()] == []


@pytest.mark.slow
def test_node_crash_brings_the_job_back_on_other_nodes(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    job = counting_job(tmp_path)
    job_id = submitted(job)
    wait_counting(job)
    node = cluster.field(job_id, "BatchHost")
    cluster.crash_node(node)
    try:
        cluster.wait_restart(job_id)
        wait_counting(job, restarts=1)
        assert node not in cluster.field(job_id, "NodeList")
    finally:
        cluster.run("scancel", job_id)
        cluster.start_node(node)


def test_cancelled_job_leaves_no_process(cluster: SlurmCluster, tmp_path: Path) -> None:
    job = counting_job(tmp_path)
    job_id = submitted(job)
    wait_counting(job)
    cluster.run("scancel", job_id)
    assert cluster.wait_state(job_id, "CANCELLED") == "CANCELLED"
    wait_for(lambda: cluster.run("squeue", "-h", "-j", job_id) == "", 120)
    before = counts(job, "now")
    time.sleep(0.3)
    assert counts(job, "now") == before
