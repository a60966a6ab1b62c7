"""SLURM's commands where some are missing or the controller is away; the commands are stand-ins."""

import shutil
from pathlib import Path

import pytest

from megatron_msm.errors import ConfigError
from slurm.jobs import queue
from slurm.jobs.queue import SlurmCommandError, check_dependency, find_by_script, query_jobs

SQUEUE = """#!/bin/sh
count=$(cat {folder}/count 2>/dev/null || echo 0); echo $((count + 1)) > {folder}/count
if [ "$count" -lt {failures} ]; then echo "{error}" >&2; exit 1; fi
echo "7|RUNNING|None|n1|/a|b/job/logs/script.sh"
echo "9_1|PENDING|Priority||/c/job/logs/script.sh"
"""
AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


def with_squeue(folder: Path, *, failures: int, error: str = AWAY) -> None:
    path = folder / "squeue"
    path.write_text(SQUEUE.format(folder=folder, failures=failures, error=error))
    path.chmod(0o755)


@pytest.fixture(autouse=True)
def _only_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    monkeypatch.setenv("PATH", f"{tmp_path}:{tools}")  # no SLURM of this machine's
    monkeypatch.setattr(queue, "_POLL_S", 0.01)


def test_no_sacct_and_no_scontrol_mean_no_more_is_known(tmp_path: Path) -> None:
    with_squeue(tmp_path, failures=0)
    assert set(query_jobs(["7", "8"])) == {"7"}


SACCT = """#!/bin/sh
echo "8|CANCELLED by 0|n1"
echo "9|FAILED|n2"
"""


def test_jobs_that_the_controller_has_forgotten_are_in_the_accounts(tmp_path: Path) -> None:
    with_squeue(tmp_path, failures=0)
    sacct = tmp_path / "sacct"
    sacct.write_text(SACCT)
    sacct.chmod(0o755)
    found = query_jobs(["7", "8", "9", "10"])
    assert {job_id: (job.state, job.is_live) for job_id, job in found.items()} == {
        "7": ("RUNNING", True),
        "8": ("CANCELLED", False),
        "9": ("FAILED", False),
    }
    with pytest.raises(ConfigError, match="--after 9: this job has ended as FAILED"):
        check_dependency("9", any_end=False)


def test_a_job_is_found_by_its_script_and_an_element_by_its_place(tmp_path: Path) -> None:
    with_squeue(tmp_path, failures=0)
    assert find_by_script(Path("/a|b/job/logs"), None) == "7"
    assert find_by_script(Path("/a|b/job"), None) is None
    assert find_by_script(Path("/c/job/logs"), 1) == "9_1"
    assert find_by_script(Path("/c/job/logs"), 0) is None


def test_a_controller_that_comes_back_is_waited_for_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_squeue(tmp_path, failures=2)
    assert query_jobs(["7"])["7"].is_live
    assert capsys.readouterr().err.count("waiting    for SLURM's controller") == 1


def test_another_error_is_raised_at_once(tmp_path: Path) -> None:
    with_squeue(tmp_path, failures=9, error="Invalid user")
    with pytest.raises(SlurmCommandError, match="Invalid user"):
        query_jobs(["7"])
    assert (tmp_path / "count").read_text() == "1\n"
