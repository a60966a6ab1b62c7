"""What stages have cost, and what they are still to cost."""

import time
from pathlib import Path

import pytest

from slurm.jobs.attempts import Attempt, record_attempt
from slurm.jobs.job import Job, write_job
from slurm.jobs.queue import QueuedJob
from slurm.jobs.submitted import Submitted, write_submitted
from slurm.stages import status
from slurm.stages.facts import write_facts
from slurm.stages.graph import job_folder
from slurm.stages.record import record_outputs
from slurm.stages.stage import Stage
from slurm.stages.status import StageStatus, all_statuses

METRICS = '{{"phase":"p","step":{step},"loss/lm_nats":2.0,"time/step_s":9.0}}\n'


def stage(name: str, kind: str = "train") -> Stage:
    return Stage(kind=kind, label=name, arguments=(name,), makes=("made",), num_steps=10)


def start(root: Path, made: Stage, *, num_gpus: int, job_id: str = "7") -> Path:
    """Write what is there of a stage whose job has been started; return the job's folder."""
    made.write(root)
    folder = job_folder(root, made.folder)
    job = Job(name="j", kind=made.kind, module="m", cwd=root, folder=folder, num_gpus=num_gpus)
    write_job(job)
    logs = folder / "logs"
    write_submitted(folder, Submitted(backend="slurm", job_id=job_id, host="h", logs=logs))
    return folder


def ended(job_id: str, seconds: float, *, ago_s: float, **changes: object) -> Attempt:
    known = {"job_id": job_id, "status": 75, "seconds": seconds, "kind": "preempted"}
    return Attempt.model_validate({**known, "ended_unix_s": time.time() - ago_s, **changes})


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> dict[str, QueuedJob]:
    """What SLURM knows."""
    known: dict[str, QueuedJob] = {}
    monkeypatch.setattr(status, "query_jobs", lambda ids: known)
    return known


def shown(root: Path, made: Stage, planned: float | None = None) -> StageStatus:
    hours = {} if planned is None else {made.folder: planned}
    [found] = all_statuses(root, {made.folder: made.label}, hours)
    return found


def test_hours_are_those_of_all_attempts_and_of_the_one_that_runs(
    tmp_path: Path, queue: dict[str, QueuedJob]
) -> None:
    made = stage("trained")
    folder = start(tmp_path, made, num_gpus=4)
    record_attempt(folder, ended("6", 1800, ago_s=7200))
    record_attempt(folder, ended("7", 3600, ago_s=600))
    queue["7"] = QueuedJob("PENDING")
    waits = shown(tmp_path, made, planned=100.0)
    assert (waits.state, waits.seconds, waits.gpu_hours) == ("queued", 5400, 6.0)
    assert waits.gpu_hours_left == 100.0

    queue["7"] = QueuedJob("RUNNING")
    write_facts(tmp_path / made.folder)  # the attempt begins
    (tmp_path / made.folder / "run").mkdir()
    steps = "".join(METRICS.format(step=step) for step in (1, 2))
    (tmp_path / made.folder / "run" / "metrics.jsonl").write_text(steps)
    runs = shown(tmp_path, made, planned=100.0)
    assert runs.state == "running"
    assert 5400 <= runs.seconds < 5400 + 60
    assert runs.gpu_hours_left == pytest.approx(8 * 9.0 * 4 / 3600)  # as its own steps say

    (tmp_path / made.folder / "made").mkdir()
    record_outputs(tmp_path / made.folder, seconds=1.0)
    finished = shown(tmp_path, made, planned=100.0)
    assert (finished.state, finished.gpu_hours, finished.gpu_hours_left) == ("finished", 6.0, 0.0)


def test_what_is_not_known_is_not_called_nothing(
    tmp_path: Path, queue: dict[str, QueuedJob]
) -> None:
    assert shown(tmp_path, stage("no estimate")).gpu_hours_left is None
    evaluation = stage("an evaluation", kind="eval")
    assert shown(tmp_path, evaluation).gpu_hours_left == 0.0
    queue["7"] = QueuedJob("FAILED")
    record_attempt(start(tmp_path, evaluation, num_gpus=1), ended("7", 7200, ago_s=1))
    assert shown(tmp_path, evaluation).gpu_hours == 2.0
