"""Identity of stages, what a stage refuses, and two runs of one graph at once."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from slurm.jobs.attempts import read_attempts
from slurm.jobs.backends import LocalBackend
from slurm.jobs.submitted import locked
from slurm.kinds import StageKind
from slurm.stages.fingerprint import FingerprintCache, fingerprint
from slurm.stages.graph import job_folder, run_here
from slurm.stages.record import Read, check_inputs, is_finished, record_outputs
from slurm.stages.stage import OUT, Stage, in_order


def outside(path: Path) -> Read:
    return Read(path=path, sha256=fingerprint(path))


def stage(
    path: Path, *needs: Stage, kind: StageKind = "report", makes: str = "made.txt", **changes: str
) -> Stage:
    return Stage(
        kind=kind,
        label=changes.get("label", "stage"),
        arguments=("prep", "docs", str(path), "--out", f"{OUT}/{makes}"),
        makes=(makes,),
        needs=needs,
        reads=(outside(path),),
    )


def finish(root: Path, made: Stage, text: str = "made") -> Path:
    folder = made.write(root)
    (folder / made.makes[0]).write_text(text)
    record_outputs(folder, seconds=1.0)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "docs.jsonl"
    path.parent.mkdir()
    path.write_text("content\n")
    return path


def test_identity_is_content_not_place_or_label(source: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_text(source.read_text())
    assert stage(moved, label="other").identity == stage(source).identity


def test_identity_follows_content_command_inputs_and_kind(source: Path) -> None:
    first = stage(source)
    needing = stage(source, first)
    source.write_text("other content\n")
    changed = stage(source)
    found = [
        first,
        changed,
        stage(source, makes="x"),
        stage(source, kind="prep"),
        needing,
        stage(source, changed),
        replace(first, files={"run.yaml": "a: 1"}),
        replace(first, files={"run.yaml": "a: 2"}),
    ]
    assert len({each.identity for each in found}) == len(found)


def test_equal_stages_are_one_and_come_after_what_they_need(source: Path) -> None:
    base = stage(source)
    left, right = stage(source, stage(source), makes="l"), stage(source, base, makes="r")
    assert [s.makes[0] for s in in_order([left, right, base])] == ["made.txt", "l", "r"]


def test_changed_inputs_are_refused(source: Path, tmp_path: Path) -> None:
    first = stage(source)
    second = stage(source, first, makes="second")
    folder = second.write(tmp_path)
    assert "not finished" in str(check_inputs(folder))
    made = finish(tmp_path, first)
    assert check_inputs(folder) is None
    (made / "made.txt").write_text("changed later")
    assert "made.txt: changed since it was made" in str(check_inputs(folder))
    (made / "made.txt").write_text("made")
    source.write_text("changed")
    assert f"{source}: content" in str(check_inputs(folder))
    planned = (folder / "stage.json").read_text()
    for package, version in second.record().code.items():
        assert package
        planned = planned.replace(version, "0" * 64)
    (folder / "stage.json").write_text(planned)
    assert "code changed" in str(check_inputs(folder))


def test_torn_stage_is_not_finished(source: Path, tmp_path: Path) -> None:
    made = stage(source)
    folder = made.write(tmp_path)
    (folder / "made.txt").write_text("half")
    assert not is_finished(folder, made.identity)
    record_outputs(folder, seconds=1.0)
    assert is_finished(folder, made.identity)
    (folder / "made.txt").unlink()
    assert not is_finished(folder, made.identity)


def test_fingerprints_are_read_again_after_a_change(source: Path, tmp_path: Path) -> None:
    cache = FingerprintCache(tmp_path / "cache.json")
    before = cache.of(source)
    cache.save()
    source.write_text("longer content\n")
    assert FingerprintCache(tmp_path / "cache.json").of(source) == fingerprint(source) != before


PROGRAM = """
import os, sys
from pathlib import Path
from slurm.jobs.backends import LocalBackend, _record as record
from slurm.stages.graph import run_here
from slurm.stages.stage import in_order
from tests.unit.slurm.stages.test_graph import choices_graph
root = Path(sys.argv[1])
stages = in_order(choices_graph(root))
def tell(stage, event, detail):
    print(event, stage.label, flush=True)
if "die-before-writing-it-down" in sys.argv:
    from slurm.jobs import backends
    backends._record = lambda *a, **k: a[1][0] and os.kill(os.getpid(), 9) or record(*a, **k)
ok = run_here(root, stages, tell, LocalBackend())
sys.exit(0 if ok else 1)
"""


def choices_graph(root: Path) -> Sequence[Stage]:
    """Two preparations of which one fails, and what builds on each."""
    reads = (outside(root / "docs.jsonl"), outside(root / "hf" / "tokenizer.json"))
    bad = (outside(root / "bad.jsonl"), reads[1])

    def prep(label: str, inputs: tuple[Read, ...]) -> Stage:
        arguments = ["prep", "docs", str(inputs[0].path), "--tokenizer", str(root / "hf")]
        return Stage(
            kind="prep",
            label=label,
            arguments=(*arguments, "--out", f"{OUT}/data"),
            makes=("data",),
            reads=inputs,
        )

    def merged(label: str, need: Stage) -> Stage:
        arguments = ("prep", "merge", need.output("data"), "--out", f"{OUT}/data")
        return Stage(kind="prep", label=label, arguments=arguments, makes=("data",), needs=(need,))

    return [merged("after-bad", prep("bad", bad)), merged("after-good", prep("good", reads))]


def test_two_runs_at_once_share_the_work_and_a_failure_stops_only_its_dependants(
    tmp_path: Path,
) -> None:
    from tests.tiny import tiny_documents, write_jsonl
    from tests.unit.data_prep.tiny_tokenizer import write_tokenizer

    write_tokenizer(tmp_path / "hf")
    write_jsonl(tmp_path / "docs.jsonl", tiny_documents(5))
    (tmp_path / "bad.jsonl").write_text('{"text": ""}\n')
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=200)[0].split("\n") for run in runs]
    assert [run.returncode for run in runs] == [1, 1]
    lines = [line for output in outputs for line in output]
    for label in ("good", "after-good"):
        assert lines.count(f"done {label}") == 1
        assert lines.count(f"finished before {label}") == 1
    assert lines.count("failed bad") == 2
    assert lines.count("not run after-bad") == 2

    events: list[str] = []
    stages = in_order(choices_graph(tmp_path)[1:])
    assert run_here(tmp_path, stages, lambda s, event, d: events.append(event), LocalBackend())
    assert events == ["finished before"] * 2


def test_a_job_whose_client_was_killed_before_it_wrote_it_down_is_waited_for(
    tmp_path: Path,
) -> None:
    from tests.tiny import tiny_documents, write_jsonl
    from tests.unit.data_prep.tiny_tokenizer import write_tokenizer

    write_tokenizer(tmp_path / "hf")
    for name in ("docs", "bad"):
        write_jsonl(tmp_path / f"{name}.jsonl", tiny_documents(5))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    killed = subprocess.run([*command, "die-before-writing-it-down"], check=False, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert second.returncode == 0, second.stderr
    assert "finished before bad" in second.stdout
    first, *_ = in_order(choices_graph(tmp_path))
    assert first.label == "bad"
    assert len(read_attempts(job_folder(tmp_path, first.folder))) == 1


def test_what_is_cancelled_meanwhile_is_not_started_here(source: Path, tmp_path: Path) -> None:
    first = stage(source)
    second = stage(source, first, makes="second")
    finish(tmp_path, first)
    events: list[tuple[str, str]] = []
    left = [{first.folder, second.folder}, set()]
    is_done = run_here(
        tmp_path,
        [first, second],
        lambda made, event, detail: events.append((made.makes[0], event)),
        LocalBackend(),
        wanted=lambda: left.pop(0),
    )
    assert not is_done
    assert events == [("made.txt", "finished before"), ("second", "cancelled")]
    assert not (tmp_path / second.folder).exists()


def test_lock_of_a_killed_client_is_taken_over(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from slurm.jobs.submitted import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "held\n"
    client.kill()
    client.wait()
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()
