"""What `msm plan` prints is pasted into `msm train`, every layout of it."""

import shlex
from pathlib import Path

import pytest

from tests.integration.training_runs import msm

NUM_GPUS = 4


@pytest.mark.parametrize(
    "changes",
    [
        ("parallel.data=2",),
        # A run file with settings of its own, which a printed layout has to take back.
        (
            *("parallel.tensor=2", "parallel.sequence=true", "parallel.data=1"),
            *("memory.recompute=full", "phases.sft.data.packing.align=2"),
        ),
    ],
    ids=["plain", "set-otherwise"],
)
def test_every_layout_printed_is_one_that_train_takes(
    prepared: Path, changes: tuple[str, ...]
) -> None:
    planned = msm("plan", "run.yaml", *changes, "--gpus", str(NUM_GPUS), "--layouts", "99",
                  cwd=prepared)  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    _, _, listed = planned.stdout.partition("legal layouts that fit")
    lines = [line for line in listed.splitlines() if " GiB  " in line]
    assert f"({len(lines)} in all)" in planned.stdout
    assert len(lines) >= 5
    assert any("align" in line for line in lines)
    *_, following = planned.stdout.splitlines()
    for line in lines:
        words = shlex.split(line.rpartition(" s  ")[2])
        taken = msm("train", "run.yaml", *changes, *words, "--plan-only", cwd=prepared)
        assert taken.returncode == 0, (words, taken.stderr)
        assert f"= {NUM_GPUS} ranks" in taken.stdout
    words = shlex.split(following.removeprefix("next: msm"))
    typed = msm(*words, cwd=prepared)
    assert typed.returncode == 0, typed.stderr
    assert f"= {NUM_GPUS} ranks" in typed.stdout
