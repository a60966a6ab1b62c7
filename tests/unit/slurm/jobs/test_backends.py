"""The same job on the back ends that need no cluster; test_slurm_jobs.py has the third."""

from pathlib import Path

import pytest

from slurm.jobs.attempts import read_attempts
from slurm.jobs.backends import Backend, InProcessBackend, LocalBackend
from slurm.jobs.job import Job
from slurm.jobs.logs import find_logs

PROGRAM = """
import pathlib, sys
pathlib.Path("out.txt").write_text(sys.argv[1])
print("written")
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize("backend", [InProcessBackend(), LocalBackend()], ids=["debug", "local"])
@pytest.mark.parametrize("status", [0, 2])
def test_job_runs_and_its_end_is_recorded(
    backend: Backend, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "program.py").write_text(PROGRAM)
    job = Job(
        name="job",
        kind="prep",
        module="program",
        arguments=("a b; $(touch ran)", str(status)),
        cwd=tmp_path,
        folder=tmp_path / "job",
    )
    [started] = backend.submit([job])
    backend.wait(started.job_id)
    [attempt] = read_attempts(job.folder)
    assert attempt.status == status
    assert attempt.kind == ("configuration" if status else None)
    assert not attempt.will_restart
    assert (tmp_path / "out.txt").read_text() == "a b; $(touch ran)"
    assert not (tmp_path / "ran").exists()
    if isinstance(backend, LocalBackend):
        [log] = find_logs(started.job_id, tmp_path)
        assert "written" in log.read_text()


@pytest.mark.parametrize("backend", [InProcessBackend(), LocalBackend()], ids=["debug", "local"])
def test_job_runs_where_a_folder_has_the_name_of_one_of_our_packages(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data_prep", "evals", "slurm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(9)")
    (tmp_path / "spec.md").write_text("# A spec\n\nBe kind.\n")
    monkeypatch.chdir(tmp_path)
    job = Job(
        name="job",
        kind="prep",
        module="megatron_msm.cli",
        arguments=("generate", "spec", "spec.md"),
        cwd=tmp_path,
        folder=tmp_path / "job",
    )
    [started] = backend.submit([job])
    backend.wait(started.job_id)
    [attempt] = read_attempts(job.folder)
    assert attempt.status == 0, attempt.tail
