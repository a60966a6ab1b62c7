"""Training on a GPU: NCCL, Transformer Engine layers, packed attention."""

from pathlib import Path

import pytest
import torch

from tests.integration.training_runs import metrics_rows, msm, prepare_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_losses_on_the_gpu_follow_those_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("transformer_engine", reason="needs Transformer Engine (extra `gpu`)")
    folder = prepare_run(tmp_path)
    for device in ("cpu", "cuda"):
        done = msm(
            *("train", "run.yaml", f"runtime.device={device}", f"out={device}/train"),
            *("runtime.dtype=bf16", "parallel.data=1"),
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
    on_cpu, on_gpu = (metrics_rows(folder / device) for device in ("cpu", "cuda"))
    losses = [[float(row["loss/lm_nats"]) for row in rows] for rows in (on_cpu, on_gpu)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
