"""A run killed at any moment leaves nothing that passes for a dataset or blocks the next run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.manifest import read_manifest
from tests.unit.data_prep.prep_cases import dataset_bytes, prepare_docs, texts, write_lines

RUN = """
import sys
from pathlib import Path
from data_prep.documents.command import DocumentOptions, prepare_documents
source, tokenizer, out = map(Path, sys.argv[1:4])
def prepare(out=out):
    prepare_documents([source], DocumentOptions(tokenizer=tokenizer, out=out))
"""
KILL_AT_EACH_STEP = (
    RUN
    + """
import os, signal
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.manifest import read_manifest

def die_at(step):
    calls = 0
    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    for name in ("replace", "unlink", "touch"):
        setattr(Path, name, counted(getattr(Path, name)))
    os.fsync = counted(os.fsync)
    prepare()

prepare(out.with_name("first"))  # the children need not compare the back ends again
killed = 0
for step in range(1, 60):
    child = os.fork()
    if child == 0:
        die_at(step)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    killed += 1
    try:
        read_manifest(Path(sys.argv[3]))
        print("finished", step)
    except DataFormatError:
        pass
print("killed", killed)
"""
)


def start(code: str, *arguments: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_while_tokenizing(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(60_000))
    out = tmp_path / "out" / "a"
    process = start(RUN + "prepare()", source, chatml_folder, out)
    deadline = time.monotonic() + 30
    partial = tmp_path / "out" / ".tmp-a.bin"
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert partial.exists()
    with pytest.raises(DataFormatError):
        read_manifest(out)
    assert not list((tmp_path / "out").glob("a*")), "all that is left has a temporary name"


def test_killed_at_each_step_of_publishing(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(5))
    prepare_docs([source], chatml_folder, tmp_path / "clean")
    out = tmp_path / "out" / "a"
    process = start(KILL_AT_EACH_STEP, source, chatml_folder, out)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = output.split("\n")
    assert int(lines[-2].removeprefix("killed ")) >= 12
    assert dataset_bytes(out) == dataset_bytes(tmp_path / "clean")
    assert len(lines) <= 5, "it is finished only at the last steps, when the manifest is there"


COMPARING = """
import os, sys, time
from pathlib import Path
import data_prep.tokenizing.choose_encoder as choosing
real = choosing._encode_beside
def slowly(texts):
    print(os.getpid(), flush=True)
    time.sleep(60)
    return real(texts)
choosing._encode_beside = slowly
from data_prep.documents.command import DocumentOptions, prepare_documents
source, tokenizer, out = map(Path, sys.argv[1:4])
prepare_documents([source], DocumentOptions(tokenizer=tokenizer, out=out))
"""


def test_a_kill_while_back_ends_are_compared_leaves_no_process(
    tmp_path: Path, chatml_folder: Path
) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(20))
    command = [sys.executable, "-c", COMPARING, *map(str, (source, chatml_folder, tmp_path / "a"))]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    beside = int(started.stdout.readline())
    started.kill()
    started.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{beside}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{beside}").exists(), "it would hold the shell's pipe"
