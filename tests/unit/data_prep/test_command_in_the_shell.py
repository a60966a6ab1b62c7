"""`msm prep docs` as a process: standard input, a full disk, an orphan."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.data_prep.prep_cases import (
    dataset_bytes,
    names_in,
    prepare_docs,
    texts,
    write_lines,
)

LIMIT_BYTES = 200_000


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "megatron_msm.cli", "prep", *map(str, arguments)]


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))


def test_standard_input(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(2_000))
    run = command("docs", "-", "--tokenizer", chatml_folder, "--out", tmp_path / "a")
    done = subprocess.run(run, input=source.read_bytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    prepare_docs([source], chatml_folder, tmp_path / "b")
    ours, theirs = (dataset_bytes(tmp_path / name) for name in "ab")
    assert all(ours[suffix] == theirs[suffix] for suffix in (".bin", ".idx"))
    again = subprocess.run(run, input=source.read_bytes(), capture_output=True, check=False)
    assert again.returncode == 2
    assert b"standard input, which cannot be compared" in again.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_no_room(workers: int, tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(20_000))
    out = tmp_path / "out" / "a"
    run = command("docs", source, "--tokenizer", chatml_folder, "--out", out)
    done = subprocess.run(
        [*run, "--workers", str(workers)],
        capture_output=True,
        text=True,
        preexec_fn=limit_file_size,
        check=False,
    )
    assert done.returncode == 1
    assert f"{out}: could not be written: File too large. Nothing was finished" in done.stderr
    assert "Traceback" not in done.stderr
    assert names_in(out.parent) == set()


def test_workers_end_with_a_killed_parent(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(60_000))
    out = tmp_path / "out" / "a"
    run = command("docs", source, "--tokenizer", chatml_folder, "--out", out, "--workers", 2)
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, start_new_session=True)
    partial = tmp_path / "out" / ".tmp-a.bin"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not members(process.pid)


def members(session: int) -> list[str]:
    """Return the processes of a session that are alive."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            alive.append(path.parent.name)
    return alive
