"""LoRA and the memory settings on a GPU, where Transformer Engine's layers do the work."""

from pathlib import Path

import pytest
import torch

from tests.integration.training_runs import metrics_rows, msm, prepare_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LORA = "lora={rank: 4, alpha: 8}"
SETTINGS = [
    "memory={recompute: selective, recompute_modules: [mlp]}",
    "memory={recompute: full}",
    "memory={loss_chunk_tokens: null}",
    "memory={optimizer_offload: 1.0}",
]


def losses(folder: Path, device: str, *changes: str) -> list[float]:
    """Train the small run in bf16 on one rank and return its losses."""
    out = f"{device}{len(list(folder.glob('cuda*')))}"
    done = msm(
        *("train", "run.yaml", f"runtime.device={device}", f"out={out}/train"),
        *("runtime.dtype=bf16", "parallel.data=1", *changes),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return [float(row["loss/lm_nats"]) for row in metrics_rows(folder / out)]


def test_adapters_on_transformer_engines_layers_train_as_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("transformer_engine", reason="needs Transformer Engine (extra `gpu`)")
    folder = prepare_run(tmp_path)
    expected = losses(folder, "cpu", LORA)
    assert losses(folder, "cuda", LORA) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("setting", SETTINGS)
def test_memory_settings_do_not_change_the_losses(tmp_path: Path, setting: str) -> None:
    pytest.importorskip("transformer_engine", reason="needs Transformer Engine (extra `gpu`)")
    folder = prepare_run(tmp_path)
    expected = losses(folder, "cuda")
    assert losses(folder, "cuda", setting) == pytest.approx(expected, rel=0.01)
