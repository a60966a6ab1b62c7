"""What an emulated GPU saves is resumed bit for bit, by either device, and exported as it is."""

import shutil
from pathlib import Path

import pytest

from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.cuda_on_cpu.runs import Trained, fp8, train
from tests.cuda_on_cpu.test_training import GPU_OF_RECIPE, INTERLEAVED, LORA, TWO
from tests.integration.training_runs import (
    assert_same_result,
    assert_same_weights,
    metrics_rows,
    weights,
)

RESUMED: dict[str, tuple[str, ...]] = {
    "bf16": (),
    "bf16, two ranks": (TWO,),
    "bf16, interleaved": (INTERLEAVED,),
    "bf16, LoRA": (LORA,),
    "offload": ("memory={optimizer_offload: 1.0}",),
    "offload, two ranks": ("memory={optimizer_offload: 1.0}", TWO),
    **{recipe: (fp8(recipe),) for recipe in ("tensorwise", "blockwise", "mxfp8")},
    **{
        f"{recipe} weights": (fp8(recipe, param_gather=True),)
        for recipe in ("tensorwise", "blockwise")
    },
}


def back_to_step_2(whole: Trained, folder: Path) -> None:
    """Copy a finished run and take it back to where it had saved first."""
    shutil.copytree(whole.folder, folder)
    out = folder / "train"
    shutil.rmtree(out / "sft")
    shutil.rmtree(iteration_folder(out / "midtrain", 4))
    (out / "midtrain" / "latest_checkpointed_iteration.txt").write_text("2")
    metrics = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(metrics[:2]))


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_ends_bit_for_bit_the_same(name: str, prepared: Path) -> None:
    gpu = GPU_OF_RECIPE.get(name.split()[0], "H100")
    whole = train(prepared, f"{name} whole", *RESUMED[name], gpu=gpu)
    back_to_step_2(whole, prepared / f"{name} resumed")
    resumed = train(prepared, f"{name} resumed", *RESUMED[name], gpu=gpu)
    assert_same_result(resumed.folder, whole.folder)


@pytest.mark.parametrize("change", ["runtime.device=cpu", TWO])
def test_a_run_goes_on_elsewhere(change: str, prepared: Path) -> None:
    name = f"on {change.split('=')[0]}"
    whole = train(prepared, f"{name} whole")
    back_to_step_2(whole, prepared / name)
    found = train(prepared, name, change)
    assert found.losses[:2] == whole.losses[:2]
    assert found.losses == pytest.approx(whole.losses, rel=0.02)


@pytest.mark.parametrize("settings", [(), (fp8("tensorwise", param_gather=True),)], ids=str)
def test_what_is_exported_is_what_was_saved(settings: tuple[str, ...], prepared: Path) -> None:
    name = "exported " + "fp8" if settings else "exported bf16"
    run = train(prepared, name, *settings)
    assert len(metrics_rows(run.folder)) == 7
    export_hf(run.folder / "train" / "sft", prepared / f"{name} hf")
    again = prepared / f"{name} again"
    import_hf(prepared / f"{name} hf", again / "train" / "sft")
    assert weights(again, "sft")
    assert_same_weights(again, run.folder, "sft")
