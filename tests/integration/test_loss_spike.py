"""A run that goes back past loss spikes does so in the same way after a kill."""

import shutil
from pathlib import Path
from typing import Any

from megatron_msm.formats.checkpoint_folder import read_checkpoint_state, resolve_checkpoint
from tests.integration.forked_ranks import output, start_ranks, train
from tests.integration.training_runs import (
    assert_same_result,
    metrics_rows,
    prepare_run,
    wait_for_line,
)

# At a learning rate of next to nothing the loss goes up and down with the data.
SETTINGS = (
    "parallel.data=1",
    "phases.midtrain.optimizer={lr: 1e-6}",
    "phases.midtrain.duration={steps: 40}",
    "phases.midtrain.loss_spike={above_nats: 0.02, window_steps: 4, max_rollbacks: 99}",
)


def rollbacks(folder: Path) -> list[dict[str, Any]]:
    return [row for row in metrics_rows(folder) if "optim/rolled_back_to_step" in row]


def test_spikes_are_undone_and_counted_and_the_result_does_not_depend_on_a_kill(
    tmp_path: Path,
) -> None:
    prepared = prepare_run(tmp_path / "prepared")
    calm = shutil.copytree(prepared, tmp_path / "calm")
    assert train(calm, *SETTINGS) == 0, output(calm)
    spikes = rollbacks(calm)
    assert spikes
    for row in spikes:
        assert row["optim/rolled_back_to_step"] == (row["step"] - 1) // 5 * 5
    state = read_checkpoint_state(resolve_checkpoint(calm / "train" / "midtrain"))
    assert state.rollbacks == tuple(
        (row["optim/rolled_back_to_step"], row["step"]) for row in spikes
    )

    killed = shutil.copytree(prepared, tmp_path / "killed")
    (rank,) = start_ranks(killed, *SETTINGS)
    wait_for_line(killed, rank.is_alive, phase="midtrain", step=spikes[0]["step"])
    rank.kill()
    rank.join()
    assert train(killed, *SETTINGS) == 0, output(killed)
    assert_same_result(killed, calm)

    limited = shutil.copytree(prepared, tmp_path / "limited")
    assert train(limited, *SETTINGS, "phases.midtrain.loss_spike.max_rollbacks=1") == 1
    assert "is a loss spike" in output(limited)
    assert "data/docs row" in output(limited)
