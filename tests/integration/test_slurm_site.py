"""What sites do to a launch, on a real SLURM: environments, options, late files, no controller."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from slurm.jobs.backends import SlurmBackend
from slurm.jobs.site import SiteConfig
from slurm.stages.graph import job_folder, stage_job
from slurm.stages.record import DONE_FILE, is_finished
from slurm.stages.status import all_statuses
from tests.integration.slurm_cluster import SlurmCluster, wait_for
from tests.integration.test_slurm_jobs import (
    REPOSITORY,
    SITE,
    counting_job,
    showing_job,
    submitted,
    wait_counting,
)
from tests.unit.slurm.stages.test_graph import finish, stage


def with_defaults(**changes: object) -> SiteConfig:
    defaults = SITE.defaults.model_copy(update=changes)
    return SITE.model_copy(update={"defaults": defaults})


@pytest.mark.slow
def test_a_site_that_hands_no_environment_on_to_jobs_or_ranks(
    cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SBATCH_EXPORT", "SLURM_EXPORT_ENV"):
        monkeypatch.setenv(name, "NONE")
    monkeypatch.setenv("GIVEN", "by the user, who is not heard")
    job = showing_job(tmp_path / "job")
    site = {"PYTHONPATH": f"{job.cwd}:{REPOSITORY}", "SLURM_CONF": str(cluster.conf)}
    job_id = submitted(job, SITE.model_copy(update={"environment": site}))
    assert cluster.wait_state(job_id, "COMPLETED", "FAILED") == "COMPLETED"
    assert orjson.loads((job.cwd / "shown.json").read_bytes())["GIVEN"] is None

    site["GIVEN"] = "by the site"
    job = showing_job(tmp_path / "other")
    site["PYTHONPATH"] = f"{job.cwd}:{REPOSITORY}"
    job_id = submitted(job, SITE.model_copy(update={"environment": site}))
    assert cluster.wait_state(job_id, "COMPLETED", "FAILED") == "COMPLETED"
    assert orjson.loads((job.cwd / "shown.json").read_bytes())["GIVEN"] == "by the site"


def test_options_of_a_site_are_what_slurm_hears(cluster: SlurmCluster, tmp_path: Path) -> None:
    odd = "a;b$(false)'%j"
    site = with_defaults(
        partition="low,high",
        sbatch={"comment": odd, "mem-per-cpu": "50M", "nice": 7},
        srun={"cpu-bind": "none", "overlap": True},
    )
    job = counting_job(tmp_path, steps=2, ranks=2)
    job_id = submitted(job, site)
    # Where it waits, both in an order of SLURM's own; where it runs, the one.
    assert set(cluster.field(job_id, "Partition").split(",")) <= {"low", "high"}
    assert cluster.field(job_id, "Comment") == odd
    assert cluster.field(job_id, "MinMemoryCPU") == "50M"
    assert cluster.field(job_id, "Nice") == "7"
    assert cluster.wait_state(job_id, "COMPLETED", "FAILED") == "COMPLETED"


@pytest.mark.slow
def test_a_result_that_a_shared_file_system_shows_late_is_waited_for(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    """SLURM has seen the first stage end well; its record is hidden from the second's node."""
    (tmp_path / "docs.jsonl").write_text('{"text": "Some words to be prepared."}\n')
    first = stage(tmp_path / "docs.jsonl")
    made = finish(tmp_path, first)
    second = stage(tmp_path / "docs.jsonl", first, makes="second.txt")
    second.write(tmp_path)
    (made / DONE_FILE).rename(made / "hidden")
    job = stage_job(tmp_path, second, SITE)
    [started] = SlurmBackend(SITE).submit([job])
    log = job.folder / "logs" / f"{started.job_id}_0_log.out"
    wait_for(lambda: log.exists() and "waiting    up to 60 s" in log.read_text(), 120)
    assert f"{first.folder}: needed, and not finished" in log.read_text()
    (made / "hidden").rename(made / DONE_FILE)
    # Its command is refused, as this is no real corpus: it was reached.
    assert cluster.wait_state(started.job_id, "FAILED", "COMPLETED") == "FAILED"
    assert "--tokenizer" in log.read_text()


def test_status_says_what_a_job_has_said_that_ended_before_it_began(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    (tmp_path / "docs.jsonl").write_text("content\n")
    made = stage(tmp_path / "docs.jsonl")
    made.write(tmp_path)
    site = SITE.model_copy(update={"setup": ("true", "module load cuda 2>/dev/null")})
    [started] = SlurmBackend(site).submit([stage_job(tmp_path, made, site)])
    assert cluster.wait_state(started.job_id, "FAILED", "COMPLETED") == "FAILED"
    [shown] = all_statuses(tmp_path, {made.folder: "made"})
    assert shown.state == "failed"
    assert "FAILED: error: setup failed in: module load cuda" in shown.detail
    assert not is_finished(tmp_path / made.folder, made.identity)
    assert (job_folder(tmp_path, made.folder) / "logs").is_dir()


@pytest.mark.slow
def test_a_controller_that_is_away_is_waited_for_and_that_is_said(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    job = counting_job(tmp_path, ranks=1)
    job_id = submitted(job)
    wait_counting(job)
    cluster.stop_controller()
    try:
        asking = subprocess.Popen(
            [sys.executable, "-m", "megatron_msm.cli", "logs", job_id, "--folder", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asking.stderr is not None
        said = asking.stderr.readline()
    finally:
        cluster.start_controller()
    shown, _ = asking.communicate(timeout=300)
    assert said.startswith("waiting    for SLURM's controller")
    assert asking.returncode == 0
    assert shown.startswith(f"job {job_id}  RUNNING")
    cluster.run("scancel", job_id)
