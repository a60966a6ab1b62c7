"""Several jobs as one of SLURM: what runs after a failure, and what a limit counts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.jobs.attempts import read_attempts
from slurm.jobs.job import Job, write_job
from slurm.stages.queueing import batches
from slurm.stages.stage import Stage

PROGRAM = """
import pathlib, sys
with pathlib.Path("ran").open("a") as file:
    file.write(sys.argv[1])
sys.exit(int(sys.argv[2]))
"""
# status of each job's program: (which run, status of the whole)
CASES = {
    "all well": ([0, 0, 0], ("012", 0)),
    "the first fails": ([1, 0, 0], ("0", 1)),
    "a later one fails": ([0, 1, 0], ("012", 1)),
    "asked to stop": ([0, 75, 0], ("01", 75)),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_failure_ends_what_needs_it_alone(case: str, tmp_path: Path) -> None:
    statuses, (ran, status) = CASES[case]
    (tmp_path / "program.py").write_text(PROGRAM)
    jobs = [
        Job(
            name="job",
            kind="eval",
            module="program",
            arguments=(str(place), str(ends)),
            cwd=tmp_path,
            folder=tmp_path / str(place),
        )
        for place, ends in enumerate(statuses)
    ]
    for job in jobs:
        write_job(job)
    paths = [str(job.path) for job in jobs]
    program = f"from slurm.jobs.worker import run_jobs; run_jobs({paths!r})"
    environment = {**os.environ, "SUBMITIT_EXECUTOR": "debug", "SUBMITIT_DEBUG_JOB_ID": "DEBUG_1"}
    environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == status
    assert (tmp_path / "ran").read_text() == ran
    found = [[attempt.status for attempt in read_attempts(job.folder)] for job in jobs]
    assert found == [[s] if str(place) in ran else [] for place, s in enumerate(statuses)]


def stage(label: str, kind: str, *needs: Stage) -> Stage:
    return Stage(kind=kind, label=label, arguments=(label,), makes=("made",), needs=needs)


def test_an_export_and_its_evaluations_are_one_job_where_the_site_says_so() -> None:
    trained = stage("train", "train")
    one, two = stage("export 1", "export", trained), stage("export 2", "export", trained)
    first = stage("eval 1a", "eval", one)
    stages = [
        *(trained, one, two, first, stage("eval 1b", "eval", one, first)),
        *(stage("eval 2", "eval", two), stage("eval base", "eval")),
    ]
    joined = batches(stages, joins_evaluations=True)
    assert [[s.label for s in batch.stages] for batch in joined] == [
        ["train"],
        ["export 1", "eval 1a", "eval 1b"],
        ["export 2", "eval 2"],
        ["eval base"],
    ]
    assert [batch.num_jobs for batch in joined] == [1, 1, 1, 1]
    assert len(batches(stages, joins_evaluations=False)) == len(stages)
