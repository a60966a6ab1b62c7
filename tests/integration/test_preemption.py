"""Stop signals at any time: all ranks save the same step, the command ends with status 75."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.training_runs import (
    assert_same_result,
    metrics_rows,
    msm,
    rank_processes,
    start_training,
    wait_for_step,
)

PREEMPTED = 75


def test_stopped_in_start_up_then_between_saves_ends_bit_for_bit_the_same(
    run_folder: Path, finished: Path
) -> None:
    # Before a rank has imported anything.
    starting = start_training(run_folder)
    while not rank_processes(starting.pid):
        assert starting.poll() is None
        time.sleep(0.01)
    starting.send_signal(signal.SIGTERM)
    _, message = starting.communicate(timeout=60)
    assert starting.returncode == PREEMPTED, message
    assert "nothing was trained" in message
    assert not (run_folder / "train" / "midtrain").exists()

    # Twice, and to all processes at once, as SLURM does it.
    running = start_training(run_folder)
    wait_for_step(run_folder, running, phase="midtrain", step=6)
    for _ in range(2):
        for pid in (running.pid, *rank_processes(running.pid)):
            os.kill(pid, signal.SIGUSR2)
    _, message = running.communicate(timeout=60)
    assert running.returncode == PREEMPTED, message
    last = int(metrics_rows(run_folder)[-1]["step"])
    assert f"after step {last} of midtrain" in message
    assert (run_folder / "train" / "midtrain" / f"iter_{last:07d}").exists()

    done = msm("train", "run.yaml", cwd=run_folder)
    assert done.returncode == 0, done.stderr
    assert f"resuming   midtrain after step {last}" in done.stdout
    assert_same_result(run_folder, finished)


def test_a_signal_to_one_rank_under_torchrun_stops_all_at_the_same_step(run_folder: Path) -> None:
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python"),
            *(sys.executable, "-m", "megatron_msm.cli", "train", "run.yaml"),
        ],
        cwd=run_folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_step(run_folder, running, phase="midtrain", step=2)
    os.kill(rank_processes(running.pid)[1], signal.SIGTERM)
    _, message = running.communicate(timeout=60)
    last = int(metrics_rows(run_folder)[-1]["step"])
    assert f"preempted  after step {last} of midtrain" in message
    assert "exitcode  : 75" in message
    assert (run_folder / "train" / "midtrain" / f"iter_{last:07d}").exists()
