"""A small run on disk: a tiny model, documents and chats, and a RUN.yaml over them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import torch

from megatron_msm.convert.importing import import_hf
from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.formats.checkpoint_folder import resolve_checkpoint
from tests.tiny import tiny_chats, tiny_documents, write_jsonl, write_tiny_llama

RUN_YAML = """\
out: train
model:
  checkpoint: base
runtime:
  device: cpu
  dtype: fp32
  threads_per_rank: 1
parallel:
  data: 2
phases:
  - name: midtrain
    data:
      prefixes: [data/docs]
    seq_length: 64
    global_batch_size: 4
    duration:
      epochs: 1.5
    optimizer:
      lr: 1e-3
    checkpoint:
      save_interval_steps: 5
  - name: sft
    data:
      prefixes: [data/chats]
    seq_length: 64
    global_batch_size: 4
    duration:
      steps: 6
    optimizer:
      lr: 1e-3
    checkpoint:
      save_interval_steps: 4
"""


def msm(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one `msm` command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "megatron_msm.cli", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def prepare_run(folder: Path, *, num_documents: int = 40, **sizes: Any) -> Path:
    """Make everything that `msm train run.yaml` needs inside `folder`; sizes are the model's."""
    hf_folder = write_tiny_llama(folder / "hf", **sizes)
    import_hf(hf_folder, folder / "base")
    write_jsonl(folder / "docs.jsonl", tiny_documents(num_documents))
    write_jsonl(folder / "chats.jsonl", tiny_chats(30))
    for kind, options in (("docs", ()), ("chats", ("--max-length", "65"))):
        done = msm(
            "prep",
            kind,
            f"{kind}.jsonl",
            "--tokenizer",
            "hf",
            "--out",
            f"data/{kind}",
            *options,
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
    (folder / "run.yaml").write_text(RUN_YAML)
    return folder


def start_training(folder: Path, *overrides: str) -> "subprocess.Popen[str]":
    """Start `msm train run.yaml` in `folder`, with slow steps, and return at once."""
    return subprocess.Popen(
        [sys.executable, "-m", "megatron_msm.cli", "train", "run.yaml", *overrides],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(folder: Path, process: "subprocess.Popen[str]", *, phase: str, step: int) -> None:
    """Return as soon as the step shows in the metrics."""
    wait_for_line(folder, lambda: process.poll() is None, phase=phase, step=step)


def wait_for_line(folder: Path, is_alive: Callable[[], bool], *, phase: str, step: int) -> None:
    """Return as soon as the step shows in the metrics."""
    wanted = f'"phase":"{phase}","step":{step},'.encode()
    metrics = folder / "train" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and wanted in metrics.read_bytes()):
        assert time.monotonic() < deadline, "the step was not reached"
        assert is_alive(), "training ended before the step"
        time.sleep(0.005)


def rank_processes(launcher: int) -> list[int]:
    """Return the process ids of the ranks that a launcher (ours or torchrun) has started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"megatron_msm" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def metrics_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl."""
    lines = (folder / "train" / "metrics.jsonl").read_bytes().splitlines()
    return [orjson.loads(line) for line in lines]


def without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop what depends on the clock."""
    clocked = ("time/", "throughput/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(clocked)} for row in rows]


def weights(folder: Path, phase: str) -> dict[str, torch.Tensor]:
    """Return every tensor of a phase's newest checkpoint."""
    checkpoint = MegatronCheckpoint(resolve_checkpoint(folder / "train" / phase))
    return {key: checkpoint.read(key) for key in checkpoint.tensors}


def assert_same_weights(folder: Path, expected: Path, phase: str) -> None:
    """Compare a phase's newest checkpoints bit for bit."""
    found, wanted = weights(folder, phase), weights(expected, phase)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def assert_same_result(folder: Path, expected: Path) -> None:
    """Compare weights bit for bit, and the metrics line by line."""
    for phase in ("midtrain", "sft"):
        assert_same_weights(folder, expected, phase)
    assert without_clock(metrics_rows(folder)) == without_clock(metrics_rows(expected))
