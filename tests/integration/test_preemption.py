"""Stop signals at any time: all ranks save the same step, the command ends with status 75.

Ctrl-C is what a terminal makes of it: SIGINT to every process of the foreground group.
"""

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from tests.integration.training_runs import (
    assert_same_result,
    metrics_rows,
    msm,
    rank_processes,
    start_training,
    wait_for_step,
)

PREEMPTED = 75
INTERRUPTED = 130
SECOND_LATER_S = 0.6


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
    steps, loss = (metrics_rows(run_folder)[-1][key] for key in ("step", "loss/lm_nats"))
    assert f"finished   sft: {steps} steps in " in done.stderr
    assert f"loss {loss:.4f}; checkpoint " in done.stderr
    assert f"train/sft/iter_{steps:07d}" in done.stderr
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
    assert f"stopped    after step {last} of midtrain" in message
    assert "exitcode  : 75" in message
    assert (run_folder / "train" / "midtrain" / f"iter_{last:07d}").exists()


@pytest.fixture
def slow_runs(run_folder: Path) -> Path:
    """A run of thousands of steps, so that a test's signals come in the midst of it."""
    text = (run_folder / "run.yaml").read_text()
    (run_folder / "run.yaml").write_text(text.replace("epochs: 1.5", "steps: 5000"))
    return run_folder


class Terminal:
    """A command with a terminal of its own, on which Ctrl-C can be typed."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
            text=True,
        )
        os.close(slave)
        self._master = master
        self._said = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                found = os.read(self._master, 4096)
            except OSError:  # the last process has closed it
                return
            if not found:
                return
            self._said += found

    def ctrl_c(self) -> None:
        """Type it."""
        os.write(self._master, b"\x03")

    @property
    def said(self) -> str:
        """All that stood on the screen so far, without its control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._said.decode(errors="replace"))

    def end(self, *, within_s: float) -> int:
        """Wait for the end and return the status."""
        try:
            status = self.process.wait(timeout=within_s)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self._reader.join(timeout=10)
        os.close(self._master)
        return status


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def train_command() -> list[str]:
    return [sys.executable, "-m", "megatron_msm.cli", "train", "run.yaml"]


def test_the_first_ctrl_c_saves_and_says_so(slow_runs: Path) -> None:
    terminal = Terminal(train_command(), slow_runs)
    wait_for_step(slow_runs, terminal.process, phase="midtrain", step=3)
    terminal.ctrl_c()
    assert terminal.end(within_s=60) == PREEMPTED, terminal.said
    last = int(metrics_rows(slow_runs)[-1]["step"])
    assert "Ctrl-C again ends it at once" in terminal.said
    assert f"stopped    after step {last} of midtrain, which is saved" in terminal.said
    assert "Traceback" not in terminal.said
    assert (slow_runs / "train" / "midtrain" / f"iter_{last:07d}").exists()
    assert not (slow_runs / "train" / "_lock.json").exists()


def test_the_second_ctrl_c_ends_at_once(slow_runs: Path) -> None:
    terminal = Terminal(train_command(), slow_runs)
    wait_for_step(slow_runs, terminal.process, phase="midtrain", step=3)
    ranks = rank_processes(terminal.process.pid)
    os.kill(ranks[1], signal.SIGSTOP)  # the step under way never ends
    terminal.ctrl_c()
    time.sleep(SECOND_LATER_S)
    assert terminal.process.poll() is None
    terminal.ctrl_c()
    assert terminal.end(within_s=10) == INTERRUPTED, terminal.said
    assert "stopped    at once" in terminal.said
    assert "Traceback" not in terminal.said
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    assert not (slow_runs / "train" / "_lock.json").exists()


def torchrun_command() -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python"),
        *train_command(),
    ]


def test_ctrl_c_under_torchrun_saves_as_well(slow_runs: Path) -> None:
    terminal = Terminal(torchrun_command(), slow_runs)
    wait_for_step(slow_runs, terminal.process, phase="midtrain", step=3)
    terminal.ctrl_c()
    assert terminal.end(within_s=60) == 1, terminal.said
    last = int(metrics_rows(slow_runs)[-1]["step"])
    assert f"stopped    after step {last} of midtrain, which is saved" in terminal.said
    assert (slow_runs / "train" / "midtrain" / f"iter_{last:07d}").exists()


def test_a_second_ctrl_c_under_torchrun_ends_at_once(slow_runs: Path) -> None:
    terminal = Terminal(torchrun_command(), slow_runs)
    wait_for_step(slow_runs, terminal.process, phase="midtrain", step=3)
    waiting, halted = rank_processes(terminal.process.pid)
    os.kill(halted, signal.SIGSTOP)
    terminal.ctrl_c()
    time.sleep(SECOND_LATER_S)
    terminal.ctrl_c()
    time.sleep(SECOND_LATER_S)
    os.kill(halted, signal.SIGCONT)
    assert terminal.end(within_s=15) == 1, terminal.said  # torchrun itself kills after 30 s
    assert not any(Path(f"/proc/{rank}").exists() for rank in (waiting, halted))
    assert "stopped    after step" not in terminal.said
