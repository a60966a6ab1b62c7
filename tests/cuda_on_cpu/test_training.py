"""Training on an emulated GPU: losses are the CPU's in bf16, and near them in FP8.

A setting that changes no arithmetic gives bf16's numbers within its rounding. FP8's losses are held
to the bound of tests/gpu: its own rounding is emulated, so they part as on a GPU.
"""

from pathlib import Path

import pytest

from megatron_msm.runtime.fp8 import RECIPES
from tests.cuda_on_cpu.runs import Trained, aligned, fp8, train

TWO = "parallel={data: 2}"
LORA = "lora={rank: 4, alpha: 8}"
PIPELINE = "parallel={pipeline: 2}"
INTERLEAVED = "parallel={pipeline: 2, virtual_pipeline: 2}"
SEQUENCE = "parallel={tensor: 2, sequence: true}"
# Under `sequence` a rank has half of a micro batch, which the block recipes divide into blocks.
LONG = tuple(f"phases.{name}.micro_batch_size=2" for name in ("midtrain", "sft"))
VALIDATION = "phases.midtrain.validation={prefixes: [data/docs], interval_steps: 2, max_batches: 1"
GPU_OF_RECIPE = {"mxfp8": "B200"}

SAME_ARITHMETIC = {
    "data": (TWO,),
    "tensor": ("parallel={tensor: 2}",),
    "tensor with sequence": (SEQUENCE,),
    "pipeline": (PIPELINE,),
    "interleaved": (INTERLEAVED,),
    "interleaved, a save each step": (
        INTERLEAVED,
        "phases.midtrain.checkpoint.save_interval_steps=1",
    ),
    "context, packed": aligned("parallel={context: 2}", rows=4),
    "from a Hugging Face folder": ("model={hf: hf}",),
    "validation": (VALIDATION + ", admit_training_data: true}",),
    "losses by source": ("logging.loss_by=[source]",),
    "profiled": ("logging.profile={first_step: 2, num_steps: 1}",),
    "saved beside the training": ("phases.midtrain.checkpoint.asynchronous=true",),
    "recompute all": ("memory={recompute: full}",),
    "recompute attention": ("memory={recompute: selective, recompute_modules: [core_attn]}",),
    "recompute the MLP": ("memory={recompute: selective, recompute_modules: [mlp]}",),
    "all logits at once": ("memory={loss_chunk_tokens: null}",),
    "offload": ("memory={optimizer_offload: 1.0}",),
    "offload, two ranks": ("memory={optimizer_offload: 1.0}", TWO),
    "offload of a half": ("memory={optimizer_offload: 0.5}",),
}
FP8: dict[str, tuple[str, tuple[str, ...]]] = {
    **{recipe: (recipe, (fp8(recipe),)) for recipe in RECIPES},
    "e4m3": ("tensorwise", (fp8("tensorwise", format="e4m3"),)),
    "ends in bf16": ("tensorwise", (fp8("tensorwise", first_layers_bf16=1, last_layers_bf16=1),)),
    "tensorwise, LoRA": ("tensorwise", (fp8("tensorwise"), LORA)),
    "blockwise, LoRA": ("blockwise", (fp8("blockwise"), LORA)),
    "tensorwise, recomputed": ("tensorwise", (fp8("tensorwise"), "memory={recompute: full}")),
    "tensorwise, sequence": ("tensorwise", (fp8("tensorwise"), SEQUENCE)),
    "delayed, sequence": ("delayed", (fp8("delayed"), SEQUENCE)),
    "blockwise, sequence": ("blockwise", (fp8("blockwise"), SEQUENCE, *LONG)),
    "tensorwise weights, two ranks": ("tensorwise", (fp8("tensorwise", param_gather=True), TWO)),
    "blockwise weights, two ranks": ("blockwise", (fp8("blockwise", param_gather=True), TWO)),
    "tensorwise weights, pipeline": (
        "tensorwise",
        (fp8("tensorwise", param_gather=True), PIPELINE),
    ),
}


@pytest.fixture(scope="module")
def on_cpu(prepared: Path) -> Trained:
    return train(prepared, "cpu", "runtime.device=cpu")


@pytest.fixture(scope="module")
def bf16(prepared: Path) -> Trained:
    return train(prepared, "bf16")


def assert_follows(found: Trained, expected: Trained) -> None:
    """Hold losses and gradient norms to bf16's rounding."""
    assert found.losses == pytest.approx(expected.losses, rel=0.02)
    assert found.norms == pytest.approx(expected.norms, rel=0.05)


def test_bf16_trains_as_on_the_cpu(bf16: Trained, on_cpu: Trained) -> None:
    assert bf16.losses[-1] < 0.8 * bf16.losses[0]
    assert_follows(bf16, on_cpu)


@pytest.mark.parametrize("name", SAME_ARITHMETIC)
def test_a_setting_that_changes_no_arithmetic(name: str, prepared: Path, bf16: Trained) -> None:
    assert_follows(train(prepared, name, *SAME_ARITHMETIC[name]), bf16)


def test_adapters_train_as_on_the_cpu(prepared: Path) -> None:
    expected = train(prepared, "lora on the cpu", LORA, "runtime.device=cpu")
    for name, change in (("lora", ()), ("lora, data", (TWO,)), ("lora, sequence", (SEQUENCE,))):
        assert_follows(train(prepared, name, LORA, *change), expected)


@pytest.mark.parametrize("name", FP8)
def test_fp8_stays_near_bf16(name: str, prepared: Path, bf16: Trained) -> None:
    recipe, changes = FP8[name]
    expected = train(prepared, f"{name} in bf16", LORA) if LORA in changes else bf16
    found = train(prepared, name, *changes, gpu=GPU_OF_RECIPE.get(recipe, "H100"))
    assert found.losses == pytest.approx(expected.losses, rel=0.05, abs=0.05)
    assert all(norm > 0.1 * other for norm, other in zip(found.norms, expected.norms, strict=True))


@pytest.mark.parametrize("recipe", ["tensorwise", "blockwise"])
def test_weights_in_fp8_train_as_weights_that_are_cast_to_it(recipe: str, prepared: Path) -> None:
    cast = train(prepared, f"{recipe} cast", fp8(recipe))
    kept = train(prepared, f"{recipe} kept", fp8(recipe, param_gather=True))
    assert (kept.losses, kept.norms) == (cast.losses, cast.norms)


@pytest.mark.parametrize("recipe", ["tensorwise", "blockwise"])
def test_a_save_and_a_validation_change_nothing_in_the_training(
    recipe: str, prepared: Path
) -> None:
    never = "phases.midtrain.checkpoint.save_interval_steps=100"
    settings = fp8(recipe, param_gather=True)
    kept = train(prepared, f"{recipe} saved", settings, VALIDATION + ", admit_training_data: true}")
    alone = train(prepared, f"{recipe} not saved", settings, never)
    assert (kept.losses, kept.norms) == (alone.losses, alone.norms)
