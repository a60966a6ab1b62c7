"""Space for the checkpoints of a whole run, beside saves that are really made and removed."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from megatron_msm.config.checkpoint import CheckpointConfig
from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import remove_old_iterations
from megatron_msm.train.checkpoints.disk_space import most_bytes, saved_steps
from tests.unit.train.test_checks import folder, plan

__all__ = ["folder"]

NUM_STEPS = 21
WEIGHTS = 127_344
BETWEEN, LAST = WEIGHTS * (4 + 12), WEIGHTS * 4


class Usage(NamedTuple):
    free: int


def size_of(folder: Path) -> int:
    # The phase's last checkpoint has no optimizer state.
    return LAST if folder.name == f"iter_{NUM_STEPS:07d}" else BETWEEN


def saved_and_removed(root: Path, config: CheckpointConfig) -> Iterator[int]:
    """Make and remove the folders of a phase; yield how many bytes they stand for each time."""
    for step in saved_steps(NUM_STEPS, config):
        (root / f"iter_{step:07d}").mkdir(parents=True)
        yield sum(map(size_of, root.iterdir()))
        remove_old_iterations(
            root,
            newest=step,
            interval=config.save_interval_steps,
            keep_last=config.keep_last,
            keep_every=config.keep_every_steps,
        )


@pytest.mark.parametrize(
    ("num_steps", "checkpoint", "expected"),
    [
        (10, {"save_interval_steps": 4}, [4, 8, 10]),
        (8, {"save_interval_steps": 4}, [4, 8]),
        (3, {"save_interval_steps": 4}, [3]),
    ],
)
def test_steps_that_are_saved(
    num_steps: int, checkpoint: dict[str, int], expected: Sequence[int]
) -> None:
    assert list(saved_steps(num_steps, CheckpointConfig(**checkpoint))) == expected


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"save_interval_steps": 2},
        {"save_interval_steps": 2, "keep_last": 1},
        {"save_interval_steps": 2, "keep_every_steps": 4},
        {"save_interval_steps": 3, "keep_last": 4},
        {"save_interval_steps": 100},
    ],
    ids=str,
)
def test_the_most_is_what_saving_and_removing_comes_to(
    folder: Path, tmp_path: Path, checkpoint: dict[str, int]
) -> None:
    settings = ", ".join(f"{key}: {value}" for key, value in checkpoint.items())
    run = plan(
        folder,
        "runtime={device: cpu, dtype: fp32}",
        f"phases.midtrain.duration={{steps: {NUM_STEPS}}}",
        f"phases.midtrain.checkpoint={{{settings}}}",
        "phases.sft.duration={steps: 1}",
    )
    in_first = max(saved_and_removed(tmp_path, CheckpointConfig(**checkpoint)))
    in_second = sum(map(size_of, tmp_path.iterdir())) + LAST
    assert most_bytes(run) == max(in_first, in_second)


def test_a_disk_that_is_too_small_is_told_before_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = most_bytes(plan(folder, "runtime.dtype=fp32"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free=most - 1))
    with pytest.raises(ConfigError, match=r"out: the checkpoints of the whole run take .* free"):
        plan(folder, "runtime.dtype=fp32")
    # What lies there already has its space.
    there = folder / "train" / "midtrain" / "iter_0000001"
    there.mkdir(parents=True)
    (there / "__0_0.distcp").write_bytes(b"12345678")
    plan(folder, "runtime.dtype=fp32")
    shutil.rmtree(folder / "train")


def test_frozen_and_adapter_weights_have_other_states(folder: Path) -> None:
    often = ("runtime.dtype=bf16", "phases.midtrain.checkpoint.save_interval_steps=1")
    full = most_bytes(plan(folder, *often))
    lora = most_bytes(plan(folder, *often, "lora={rank: 4, alpha: 4}"))
    frozen = most_bytes(plan(folder, *often, "freeze=[model.embed_tokens.weight]"))
    assert lora < frozen < full
