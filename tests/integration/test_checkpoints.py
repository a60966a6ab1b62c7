"""Checkpoints of a run: written beside the training, damaged, malicious, on a full disk."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from megatron_msm.formats.checkpoint_folder import STATE_FILE, latest_iteration
from megatron_msm.formats.files import file_record
from tests.integration.forked_ranks import output, train
from tests.integration.training_runs import assert_same_result

ONE_RANK = "parallel.data=1"


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted, and kept everything."""
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("finished") / "run")
    assert train(folder, ONE_RANK, "phases.midtrain.checkpoint.keep_last=9") == 0, output(folder)
    return folder


@pytest.fixture
def half_done(finished: Path, tmp_path: Path) -> Path:
    """The same run as it was when step 10 of its first phase was saved."""
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folder / "train" / "sft")
    for folder_of_later in (folder / "train" / "midtrain").glob("iter_*"):
        if folder_of_later.name not in ("iter_0000005", "iter_0000010"):
            shutil.rmtree(folder_of_later)
    (folder / "train" / "midtrain" / "latest_checkpointed_iteration.txt").write_text("10\n")
    return folder


def iterations(folder: Path, phase: str) -> list[int]:
    return sorted(int(path.name[5:]) for path in (folder / "train" / phase).glob("iter_*"))


def shard(iteration: Path) -> Path:
    return next(iter(iteration.glob("*.distcp")))


def flip_a_bit(iteration: Path) -> None:
    with shard(iteration).open("r+b") as file:
        file.seek(-2000, 2)
        byte = file.read(1)[0]
        file.seek(-2000, 2)
        file.write(bytes([byte ^ 4]))


def truncate(iteration: Path) -> None:
    with shard(iteration).open("r+b") as file:
        file.truncate(1000)


def lose_the_state(iteration: Path) -> None:
    (iteration / STATE_FILE).unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, lose_the_state])
def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(
    half_done: Path, finished: Path, damage: Callable[[Path], None]
) -> None:
    damage(half_done / "train" / "midtrain" / "iter_0000010")
    assert train(half_done, ONE_RANK) == 0, output(half_done)
    said = output(half_done)
    assert "iter_0000010" in said
    assert "The one before it is used" in said
    assert_same_result(half_done, finished)


def test_written_beside_the_training_they_are_the_same(
    prepared: Path, finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    keep = "save_interval_steps: 3, keep_last: 1, keep_every_steps: 6"
    changes = [
        f"phases.{phase}.checkpoint={{asynchronous: true, {keep}}}" for phase in ("midtrain", "sft")
    ]
    assert train(folder, ONE_RANK, *changes) == 0, output(folder)
    assert_same_result(folder, finished)
    assert iterations(folder, "midtrain") == [6, 12, 15]
    assert latest_iteration(folder / "train" / "midtrain") == 15
    assert not list((folder / "train").glob("*/.tmp-*"))


def test_a_full_disk_leaves_the_last_good_one(half_done: Path, finished: Path) -> None:
    largest = max(path.stat().st_size for path in (half_done / "train").rglob("events.*"))
    for asynchronous in ("true", "false"):
        status = train(
            half_done,
            ONE_RANK,
            f"phases.midtrain.checkpoint.asynchronous={asynchronous}",
            "phases.midtrain.checkpoint.save_interval_steps=2",
            max_file_bytes=largest + 100_000,
        )
        assert status == 1, output(half_done)
        assert "error: " in output(half_done)
        assert "could not be written" in output(half_done)
        assert "GiB free" in output(half_done)
        assert "Traceback" not in output(half_done)
        assert iterations(half_done, "midtrain") == [5, 10]
        assert latest_iteration(half_done / "train" / "midtrain") == 10
        assert not list((half_done / "train" / "midtrain").glob(".tmp-*"))
    assert train(half_done, ONE_RANK) == 0, output(half_done)
    assert_same_result(half_done, finished)


class Malice:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", [".metadata", "common.pt", "metadata.json", "*.distcp"])
def test_a_malicious_pickle_in_any_file_is_refused(
    half_done: Path, name: str, tmp_path: Path
) -> None:
    """With a matching hash: as whoever makes the whole checkpoint would give it."""
    mark = tmp_path / "ran"
    iteration = half_done / "train" / "midtrain" / "iter_0000010"
    # megatron-core 0.19 writes no common.pt, but reads one.
    file = next(iter(iteration.glob(name)), iteration / name)
    if name == "metadata.json":
        file.write_bytes(
            orjson.dumps(
                {
                    "sharded_backend": "zarr",
                    "sharded_backend_version": 1,
                    "common_backend": "torch",
                    "common_backend_version": 1,
                }
            )
        )
    else:
        content = pickle.dumps(Malice(mark))
        # Tensors lie at offsets of their file: the pickle is at each that a reader might take.
        copies = file.stat().st_size // len(content) + 1 if name == "*.distcp" else 1
        file.write_bytes(content * copies)
    state = orjson.loads((iteration / STATE_FILE).read_bytes())
    state["files"][file.name] = file_record(file).model_dump()
    (iteration / STATE_FILE).write_bytes(orjson.dumps(state))

    assert train(half_done, ONE_RANK) == 2, output(half_done)
    assert "error: " in output(half_done)
    assert "iter_0000010" in output(half_done)
    assert not mark.exists()
