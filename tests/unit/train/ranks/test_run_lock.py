"""The lock of a run folder: one holder, which is named, and only a dead one loses it."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import orjson
import pytest

from megatron_msm.errors import ConfigError
from megatron_msm.formats.lock_file import Holder, this_process
from megatron_msm.train.ranks.run_lock import LOCK_FILE, run_lock

CONTEXT = multiprocessing.get_context("fork")


def hold(out: Path, journal: Path) -> None:
    """Take the lock, say so, hold it for a moment, say that it ends."""
    try:
        with run_lock(out), journal.open("ab", buffering=0) as file:
            file.write(b"in\n")
            time.sleep(0.05)
            file.write(b"out\n")
    except ConfigError:
        os._exit(2)


def hold_forever(out: Path) -> None:
    with run_lock(out):
        time.sleep(600)


def start_holder(out: Path) -> multiprocessing.process.BaseProcess:
    holder = CONTEXT.Process(target=hold_forever, args=(out,))
    holder.start()
    while not (out / LOCK_FILE).exists():
        time.sleep(0.01)
    return holder


def write_lock(out: Path, **changes: object) -> None:
    content = this_process().model_copy(update=changes).model_dump()
    (out / LOCK_FILE).write_bytes(orjson.dumps(content))


def test_the_holder_is_named_and_keeps_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    holder = start_holder(tmp_path / "new" / "out")
    text = (tmp_path / "new" / "out" / LOCK_FILE).read_bytes()
    found = Holder.model_validate(orjson.loads(text))
    try:
        with (
            pytest.raises(ConfigError, match=f"process {holder.pid} of SLURM job 4711 on "),
            run_lock(tmp_path / "new" / "out"),
        ):
            pass
        assert found.pid == holder.pid
        assert (tmp_path / "new" / "out" / LOCK_FILE).read_bytes() == text
    finally:
        holder.kill()
        holder.join()


def test_the_lock_of_a_killed_process_is_taken_over_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = start_holder(tmp_path)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with run_lock(tmp_path):
        pass
    assert f"taken over from process {holder.pid} on " in capsys.readouterr().err
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize(
    ("changes", "job_starts", "is_taken_over"),
    [
        ({}, 0, False),  # this very process
        ({"started": "1"}, 0, True),  # its number, of an earlier one
        ({"host": "node7", "machine": "another"}, 0, False),
        ({"host": "node7", "machine": "another", "job": "5", "job_starts": 0}, 1, True),
        ({"host": "node7", "machine": "another", "job": "5", "job_starts": 1}, 1, False),
        ({"host": "node7", "machine": "another", "job": "6", "job_starts": 0}, 1, False),
        ({"job": "5", "job_starts": 0}, 1, False),  # alive, whatever its job says
    ],
)
def test_a_lock_is_taken_over_only_from_a_holder_that_is_certainly_gone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    job_starts: int,
    is_taken_over: bool,
) -> None:
    write_lock(tmp_path, **changes)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(job_starts))
    if is_taken_over:
        with run_lock(tmp_path):
            pass
        assert not (tmp_path / LOCK_FILE).exists()
    else:
        with pytest.raises(ConfigError, match="is being trained in by"), run_lock(tmp_path):
            pass


def test_of_many_that_start_at_once_on_a_stale_lock_never_two_hold_it(tmp_path: Path) -> None:
    write_lock(tmp_path, started="1")
    journal = tmp_path / "journal"
    ranks = [CONTEXT.Process(target=hold, args=(tmp_path, journal)) for _ in range(24)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert {rank.exitcode for rank in ranks} <= {0, 2}
    lines = journal.read_text().split()
    assert lines == ["in", "out"] * (len(lines) // 2)
    assert len(lines) == 2 * [rank.exitcode for rank in ranks].count(0) > 0
    assert list(tmp_path.iterdir()) == [journal]


def test_a_lock_that_cannot_be_read_or_made_is_said(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("{}")
    with pytest.raises(ConfigError, match=f"{LOCK_FILE}: names no holder"), run_lock(tmp_path):
        pass
    file = tmp_path / "file"
    file.touch()
    with (
        pytest.raises(ConfigError, match=r"cannot be used: .*Not a directory"),
        run_lock(file / "x"),
    ):
        pass
