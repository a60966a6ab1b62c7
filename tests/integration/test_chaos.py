"""Killed again and again, at random points, a run ends with the weights of one that never was."""

import random
import shutil
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.integration.forked_ranks import output, start_ranks, train
from tests.integration.training_runs import assert_same_result

# Every second step is saved, in a forked process in the first phase: many kills hit a save.
SETTINGS = (
    "phases.midtrain.checkpoint={save_interval_steps: 2, asynchronous: true}",
    "phases.sft.checkpoint={save_interval_steps: 2}",
)

# How often it is saved decides nothing; without kills it only takes time.
RARELY = tuple(
    f"phases.{phase}.checkpoint={{save_interval_steps: 100}}" for phase in ("midtrain", "sft")
)


def run_with_kills(folder: Path, settings: tuple[str, ...], *, num_ranks: int, kills: int) -> int:
    """Run to the end through `kills` SIGKILLs of all ranks; return how many hit a save."""
    dice = random.Random(0)
    hit_saves = 0
    killed = 0
    while killed < kills:
        ranks = start_ranks(folder, *settings, num_ranks=num_ranks)
        match dice.choices(("start-up", "steps", "save"), (1, 2, 2)):
            case ["start-up"]:
                time.sleep(dice.uniform(0, 1))
            case ["steps"]:
                wait_for_progress(folder, ranks)
                time.sleep(dice.uniform(0, 0.1))
            case _:
                wait_for_save(folder, ranks)
                time.sleep(dice.uniform(0, 0.05))
        if not all(rank.is_alive() for rank in ranks):
            # It ended before a busy machine could kill it: that proves nothing, and it begins anew.
            for rank in ranks:
                rank.join()
                assert rank.exitcode == 0, f"ended too early: {output(folder)}"
            shutil.rmtree(folder / "train")
            continue
        killed += 1
        for rank in dice.sample(ranks, len(ranks)):
            rank.kill()
        for rank in ranks:
            rank.join()
        hit_saves += bool(unfinished_saves(folder))
    assert train(folder, *settings, *RARELY, num_ranks=num_ranks) == 0, output(folder)
    return hit_saves


def wait_for_progress(folder: Path, ranks: list[ForkServerProcess]) -> None:
    """Return when a step has been made; before, lines of steps to be made again are dropped."""
    metrics = folder / "train" / "metrics.jsonl"
    before = metrics.stat().st_mtime_ns if metrics.exists() else 0
    size = metrics.stat().st_size if metrics.exists() else 0
    while all(rank.is_alive() for rank in ranks):
        time.sleep(0.002)
        if metrics.exists() and metrics.stat().st_mtime_ns != before:
            if metrics.stat().st_size > size:
                return
            size = metrics.stat().st_size


def wait_for_save(folder: Path, ranks: list[ForkServerProcess]) -> None:
    """Return when a save has begun."""
    before = unfinished_saves(folder)  # of a run that was killed
    while all(rank.is_alive() for rank in ranks) and unfinished_saves(folder) <= before:
        time.sleep(0.002)


def unfinished_saves(folder: Path) -> set[Path]:
    return set((folder / "train").glob("*/.tmp-*"))


def compare(
    prepared: Path, tmp_path: Path, settings: tuple[str, ...], *, num_ranks: int, kills: int
) -> int:
    calm = shutil.copytree(prepared, tmp_path / "calm")
    assert train(calm, *settings, *RARELY, num_ranks=num_ranks) == 0, output(calm)
    wild = shutil.copytree(prepared, tmp_path / "wild")
    hit_saves = run_with_kills(wild, settings, num_ranks=num_ranks, kills=kills)
    assert_same_result(wild, calm)
    assert not list((wild / "train").glob("*/.tmp-*"))
    return hit_saves


def test_four_kills(prepared: Path, tmp_path: Path) -> None:
    compare(prepared, tmp_path, ("parallel.data=1", *SETTINGS), num_ranks=1, kills=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_of_two_ranks(prepared: Path, tmp_path: Path) -> None:
    settings = (
        *SETTINGS,
        "phases.midtrain.duration={steps: 300}",
        "phases.sft.duration={steps: 60}",
    )
    assert compare(prepared, tmp_path, settings, num_ranks=2, kills=50) > 5
