"""Experts, packed context parallelism, layouts of two GPUs, and resuming, on GPUs."""

from pathlib import Path

import pytest
import torch

from megatron_msm.convert.importing import import_hf
from tests.integration.training_runs import (
    assert_same_result,
    metrics_rows,
    msm,
    prepare_run,
    start_training,
    wait_for_step,
)
from tests.tiny import write_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
SIZES = {"num_attention_heads": 4, "num_key_value_heads": 2}
ALIGNED = tuple(f"phases.{phase}.data.packing.align=4" for phase in ("midtrain", "sft"))
ONE = "parallel={data: 1}"
LAYOUTS = {
    "data": ("parallel={data: 2}",),
    "tensor": ("parallel={tensor: 2}",),
    "tensor with sequence": ("parallel={tensor: 2, sequence: true}",),
    "pipeline": ("parallel={pipeline: 2}",),
    "interleaved": ("parallel={pipeline: 2, virtual_pipeline: 2}",),
    "context, packed": ("parallel={context: 2}", *ALIGNED),
}
EXPERT_LAYOUTS = {
    "one GPU": (ONE,),
    "experts over data": pytest.param(("parallel={data: 2, expert: 2}",), marks=two_gpus),
    "experts over tensor": pytest.param(
        ("parallel={tensor: 2, sequence: true, expert: 2}",), marks=two_gpus
    ),
    "router frozen": (ONE, "lora={rank: 4, alpha: 8, targets: [linear_qkv, linear_proj]}"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformer_engine", reason="needs Transformer Engine (extra `gpu`)")
    return prepare_run(tmp_path_factory.mktemp("prepared"), **SIZES)


@pytest.fixture(scope="module")
def with_experts(prepared: Path) -> Path:
    sizes = {**SIZES, "hidden_size": 64, "moe_intermediate_size": 32, "head_dim": 32}
    hf = write_tiny_model(prepared / "hf_moe", "qwen3_moe", dtype="bfloat16", **sizes)
    import_hf(hf, prepared / "base_moe")
    return prepared


def numbers(folder: Path, device: str, out: str, *changes: str) -> list[list[float]]:
    """Train in bf16 and return losses and gradient norms."""
    done = msm(
        *("train", "run.yaml", f"runtime.device={device}", f"out={out}/train"),
        *("runtime.dtype=bf16", *changes),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    rows = metrics_rows(folder / out)
    return [[float(row[name]) for row in rows] for name in ("loss/lm_nats", "optim/grad_norm")]


@two_gpus
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_two_gpus_train_as_one(prepared: Path, layout: str) -> None:
    aligned = ALIGNED if ALIGNED[0] in LAYOUTS[layout] else ()
    expected = numbers(prepared, "cuda", f"one {layout}", ONE, *aligned)
    found = numbers(prepared, "cuda", f"two {layout}", *LAYOUTS[layout])
    assert found[0] == pytest.approx(expected[0], rel=0.02)
    assert found[1] == pytest.approx(expected[1], rel=0.05)


@pytest.mark.parametrize("changes", EXPERT_LAYOUTS.values(), ids=list(EXPERT_LAYOUTS))
def test_experts_train_as_on_the_cpu(with_experts: Path, changes: tuple[str, ...]) -> None:
    base = "model={checkpoint: base_moe}"
    out = str(abs(hash(changes)))
    adapters = [change for change in changes if change.startswith("lora")]
    expected = numbers(with_experts, "cpu", f"cpu {out}", base, ONE, *adapters)
    found = numbers(with_experts, "cuda", f"cuda {out}", base, *changes)
    assert found[0] == pytest.approx(expected[0], rel=0.02)
    assert found[1] == pytest.approx(expected[1], rel=0.05)


def test_a_deterministic_run_that_is_killed_ends_bit_for_bit_the_same(
    prepared: Path, tmp_path: Path
) -> None:
    settings = ("runtime.device=cuda", "runtime.dtype=bf16", "runtime.deterministic=true", ONE)
    long = (*settings, "phases.midtrain.duration={steps: 60}")
    folders = [prepare_run(tmp_path / name, **SIZES) for name in ("whole", "killed")]
    done = msm("train", "run.yaml", *long, cwd=folders[0])
    assert done.returncode == 0, done.stderr
    first = start_training(folders[1], *long)
    wait_for_step(folders[1], first, phase="midtrain", step=17)
    first.kill()
    first.wait()
    done = msm("train", "run.yaml", *long, cwd=folders[1])
    assert done.returncode == 0, done.stderr
    assert_same_result(folders[1], folders[0])
