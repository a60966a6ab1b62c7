"""What is shown of the stages that run on this machine."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from slurm.experiments.experiment_file import StartedArm, StartedExperiment
from slurm.experiments.local_screen import LocalScreen
from slurm.jobs.submitted import Submitted, write_submitted
from slurm.stages.graph import job_folder
from slurm.stages.stage import Stage


def stage(label: str) -> Stage:
    return Stage(kind="prep", label=label, arguments=(label,), makes=("made",))


@pytest.fixture
def stages() -> list[Stage]:
    return [stage("docs"), stage("own chats")]


@pytest.fixture
def started(stages: list[Stage]) -> StartedExperiment:
    docs, chats = (each.folder for each in stages)
    return StartedExperiment(
        title="t",
        labels={docs: "docs", chats: "own chats"},
        arms=(
            StartedArm(name="a", stages=(docs, chats), evaluations={}),
            StartedArm(name="b", stages=(docs,), evaluations={}),
        ),
    )


def test_each_stage_has_its_place_and_who_shares_it(
    tmp_path: Path,
    stages: list[Stage],
    started: StartedExperiment,
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = LocalScreen(tmp_path, stages, started, Console(file=io.StringIO()))
    for each in stages:
        screen.tell(each, "running", "msm prep")
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["1/2", "running", "docs", "(shared", "by", "2", "arms)", "msm", "prep"]
    assert second.split() == ["2/2", "running", "own", "chats", "msm", "prep"]


def test_the_newest_line_of_its_log_is_shown_while_a_stage_runs(
    tmp_path: Path,
    stages: list[Stage],
    started: StartedExperiment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("megatron_msm.progress.LINE_EVERY_S", 0.3)
    monkeypatch.setattr("slurm.experiments.local_screen._LOOK_EVERY_S", 0.05)
    folder, logs = job_folder(tmp_path, stages[1].folder), tmp_path / "logs"
    logs.mkdir()
    shown = io.StringIO()
    screen = LocalScreen(tmp_path, stages, started, Console(file=shown, width=40))
    with screen.watching(stages[1]):
        assert screen.running == stages[1]
        folder.mkdir(parents=True)
        write_submitted(folder, Submitted(backend="local", job_id="7", host="here", logs=logs))
        (logs / "7_0_log.out").write_text("begun\nsft: 4 of 90 steps, about 3 min left\n\n")
        time.sleep(1.5)
    assert not screen.running
    newest = shown.getvalue().splitlines()[-1]
    assert newest.startswith("2/2 own chats: ")
    assert newest.endswith(" s so far; sft: 4 of 90 steps, about 3 min left")
