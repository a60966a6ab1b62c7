"""Runs of a Gemma 3 on an emulated GPU: windows, two rotations, norms on both sides, GELU, FP8."""

import functools
from pathlib import Path

import pytest

from tests.cuda_on_cpu.runs import SIZES, Trained, fp8, train
from tests.cuda_on_cpu.test_training import assert_follows
from tests.integration import training_runs
from tests.tiny import write_tiny_model

FP8 = {
    "tensorwise": (fp8("tensorwise"),),
    "tensorwise weights": (fp8("tensorwise", param_gather=True),),
}


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write = functools.partial(write_tiny_model, model_type="gemma3_text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_runs, "write_tiny_llama", write)
        return training_runs.prepare_run(
            tmp_path_factory.mktemp("gemma"), **SIZES, initializer_range=0.02
        )


@pytest.fixture(scope="module")
def bf16(gemma: Path) -> Trained:
    return train(gemma, "bf16")


def test_bf16_trains_as_on_the_cpu(gemma: Path, bf16: Trained) -> None:
    assert bf16.losses[-1] < bf16.losses[0]
    assert_follows(bf16, train(gemma, "cpu", "runtime.device=cpu"))


@pytest.mark.parametrize("name", FP8)
def test_fp8_stays_near_bf16(name: str, gemma: Path, bf16: Trained) -> None:
    found = train(gemma, name, *FP8[name])
    assert found.losses == pytest.approx(bf16.losses, rel=0.05, abs=0.05)
