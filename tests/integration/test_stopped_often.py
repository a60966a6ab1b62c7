"""Told to stop at any time, during validations and saves too, a run goes on as if it never was."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

from tests.integration.forked_ranks import output, start_ranks, train
from tests.integration.training_runs import assert_same_result, metrics_rows, prepare_run

SETTINGS = (
    "parallel.data=1",
    "phases.midtrain.checkpoint={save_interval_steps: 3, asynchronous: true}",
    "phases.midtrain.validation={prefixes: [data/docs, data/chats], interval_steps: 1, "
    "admit_training_data: true}",
)
PREEMPTED = 75


def test_metrics_and_weights_are_those_of_the_run_that_was_left_alone(tmp_path: Path) -> None:
    prepared = prepare_run(tmp_path / "prepared")
    calm = shutil.copytree(prepared, tmp_path / "calm")
    assert train(calm, *SETTINGS) == 0, output(calm)

    often = shutil.copytree(prepared, tmp_path / "often")
    metrics = often / "train" / "metrics.jsonl"
    dice = random.Random(0)
    for _ in range(4):
        before = metrics.stat().st_size if metrics.exists() else 0
        (rank,) = start_ranks(often, *SETTINGS)
        while not (metrics.exists() and metrics.stat().st_size > before):
            assert rank.is_alive(), output(often)
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.05))  # mostly in the next validation
        assert rank.pid is not None
        os.kill(rank.pid, signal.SIGTERM)
        rank.join(120)
        assert rank.exitcode == PREEMPTED, output(often)
        last = metrics_rows(often)[-1]["step"]
        assert f"after step {last} of midtrain, which is saved" in output(often)
    assert train(often, *SETTINGS) == 0, output(often)
    assert_same_result(often, calm)
