"""Checks and packing are done once a node, however many ranks there are."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

# Runs at the start of every Python process and notes who calls what.
COUNTER = """\
import functools, os, pathlib

def counted(function):
    @functools.wraps(function)
    def call(*arguments, **settings):
        with pathlib.Path(os.environ["CALLS"]).open("a") as calls:
            calls.write(function.__name__ + "\\n")
        return function(*arguments, **settings)
    return call

from megatron_msm.data.packing import packings
from megatron_msm.train import checks

packings.pack_documents = counted(packings.pack_documents)
checks.check_layout = counted(checks.check_layout)
"""
RUN = ("megatron_msm.cli", "train", "run.yaml")
SHORT = ("phases.midtrain.duration={steps: 1}", "phases.sft.duration={steps: 1}")
STARTS = {
    "msm train": (sys.executable, "-m", *RUN),
    "torchrun": (
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python"),
        *(sys.executable, "-m", *RUN),
    ),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
def test_two_ranks_are_checked_and_packed_for_once(
    run_folder: Path, start: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(COUNTER)
    calls = tmp_path / "calls"
    done = subprocess.run(
        [*start, *SHORT],
        cwd=run_folder,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "CALLS": str(calls)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (run_folder / "train" / "sft" / "iter_0000001").is_dir()
    assert done.stdout.count("layout     tensor 1") == 1
    assert Counter(calls.read_text().split()) == {"check_layout": 1, "pack_documents": 2}
    assert not list((run_folder / "train").glob("_packings-*"))


def test_what_one_rank_finds_wrong_ends_all_with_its_status(run_folder: Path) -> None:
    wrong = "phases.sft.duration={steps: 10000}"
    rows = "phases.sft.data={sources: [{prefix: data/chats, rows: 12}]}"
    done = subprocess.run(
        [*STARTS["torchrun"], wrong, rows],
        cwd=run_folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode != 0
    assert "error: phases.sft: duration: 10000 steps need" in done.stderr
    assert 'Traceback (most recent call last):\n  File "' + str(run_folder) not in done.stderr
    assert "exitcode  : 2" in done.stderr
