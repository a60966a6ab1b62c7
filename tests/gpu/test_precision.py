"""FP8 on a GPU that has it: losses stay near bf16's.

Bounds, over 40 steps on the same data: no step's loss is further from bf16's than 5% or 0.05 nats,
and the mean of the last ten is within 2% or 0.02 nats. The model is small and starts from random
weights, where rounding shows most.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_msm.config.precision import Fp8Config
from megatron_msm.runtime.device import this_machine
from megatron_msm.runtime.fp8 import RECIPES, obstacles
from tests.integration.training_runs import metrics_rows, msm, prepare_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NUM_STEPS = 40
# Dimensions that 128 divides, for the block recipes; heads that FP8's alignment allows.
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_run(tmp_path_factory.mktemp("prepared"), **SIZES)


@pytest.fixture(scope="module")
def bf16_losses(prepared: Path) -> list[float]:
    return losses_of(prepared, "bf16")


def losses_of(folder: Path, out: str, *overrides: str) -> list[float]:
    done = msm(
        *("train", "run.yaml", "runtime.device=cuda", "runtime.dtype=bf16", f"out={out}/train"),
        *("parallel.data=1", "phases.midtrain.seq_length=128", "phases.sft.duration.steps=1"),
        *(f"phases.midtrain.duration={{steps: {NUM_STEPS}}}", "phases.sft.seq_length=128"),
        *overrides,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    rows = [row for row in metrics_rows(folder / out) if row["phase"] == "midtrain"]
    return [float(row["loss/lm_nats"]) for row in rows]


def settings() -> list[Any]:
    """Return every recipe, alone and with what it can be combined with."""
    return [
        *(pytest.param(recipe, [], id=recipe) for recipe in RECIPES),
        pytest.param("tensorwise", ["first_layers_bf16=1", "last_layers_bf16=1"], id="ends-bf16"),
        pytest.param("tensorwise", ["param_gather=true"], id="tensorwise-param-gather"),
        pytest.param("tensorwise", ["format=e4m3"], id="tensorwise-e4m3"),
    ]


@pytest.mark.parametrize(("recipe", "changes"), settings())
def test_losses_stay_near_those_of_bf16(
    recipe: Any, changes: list[str], prepared: Path, bf16_losses: list[float]
) -> None:
    missing = list(obstacles(Fp8Config(recipe=recipe), this_machine()))
    if missing:
        pytest.skip(" ".join(missing))
    name = "-".join([recipe, *changes]).replace("=", "_")
    overrides = [f"runtime.fp8.{change}" for change in (f"recipe={recipe}", *changes)]
    losses = losses_of(prepared, name, *overrides)
    assert losses == pytest.approx(bf16_losses, rel=0.05, abs=0.05)
    assert sum(losses[-10:]) / 10 == pytest.approx(sum(bf16_losses[-10:]) / 10, rel=0.02, abs=0.02)
    assert losses[-1] < 0.8 * losses[0]
