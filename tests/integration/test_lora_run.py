"""`msm train` with adapters: resume, the next phase, and what comes out."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.formats.checkpoint_folder import read_checkpoint_state, resolve_checkpoint
from tests.integration.training_runs import msm

LORA = "lora={rank: 4, alpha: 8}"
SHORT = (
    "parallel.data=1",
    "phases.midtrain.duration={steps: 4}",
    "phases.sft.duration={steps: 3}",
    "phases.sft.optimizer={lr: 1e-5}",
)


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("finished") / "run")
    done = msm("train", "run.yaml", LORA, *SHORT, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "14,592 trainable parameters beside 127,344 frozen ones" in done.stdout
    return folder


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    opened = MegatronCheckpoint(resolve_checkpoint(checkpoint))
    return {key: opened.read(key) for key in opened.tensors if not key.startswith("optimizer")}


def test_the_base_stays_and_sft_goes_on_with_the_midtraining_adapter(finished: Path) -> None:
    base, midtrain, sft = (
        tensors(finished / name) for name in ("base", "train/midtrain", "train/sft")
    )
    # Training pads the vocabulary.
    assert all(torch.equal(sft[key][: len(base[key])], base[key]) for key in base)
    adapters = sft.keys() - base.keys()
    assert len(adapters) == 2 * 4 * 4
    for key in adapters:
        moved = (sft[key] - midtrain[key]).norm()
        # Three tiny steps on: near where midtraining ended, not where a new adapter would begin.
        assert 0 < moved < 0.05 * midtrain[key].norm(), key


def test_resumed_from_a_checkpoint_ends_bit_for_bit_the_same(
    prepared: Path, finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    every_step = "phases.sft.checkpoint={save_interval_steps: 1, keep_last: 9}"
    assert msm("train", "run.yaml", LORA, *SHORT, every_step, cwd=folder).returncode == 0
    shutil.rmtree(folder / "train/sft/iter_0000003")
    (folder / "train/sft/latest_checkpointed_iteration.txt").write_text("2\n")

    done = msm("train", "run.yaml", LORA, *SHORT, every_step, cwd=folder)

    assert "resuming   sft after step 2" in done.stdout, done.stderr
    found, wanted = tensors(folder / "train/sft"), tensors(finished / "train/sft")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_a_start_from_the_hugging_face_folder_is_the_same_run(
    prepared: Path, finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    done = msm("train", "run.yaml", "model={hf: hf}", LORA, *SHORT, cwd=folder)
    assert done.returncode == 0, done.stderr
    found, wanted = tensors(folder / "train/sft"), tensors(finished / "train/sft")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_both_exports_are_the_trained_model(finished: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    refused = msm("convert", "export", "train/sft", "adapter", "--adapter", cwd=finished)
    assert refused.returncode == 2
    assert "came from a folder, 'hf'" in refused.stderr
    for options in (("merged",), ("adapter", "--adapter", "--base", "hf")):
        done = msm("convert", "export", "train/sft", *options, cwd=finished)
        assert done.returncode == 0, done.stderr
    base: Any = AutoModelForCausalLM.from_pretrained(finished / "hf", dtype=torch.float32)
    merged: Any = AutoModelForCausalLM.from_pretrained(finished / "merged", dtype=torch.float32)
    tokens = torch.arange(3, 19)[None]
    plain = base(tokens).logits
    adapted: Any = AutoPeftModelForCausalLM.from_pretrained(
        str(finished / "adapter"), dtype=torch.float32
    )
    torch.testing.assert_close(merged(tokens).logits, adapted(tokens).logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(merged(tokens).logits, plain, rtol=1e-3)
    assert len(load_file(finished / "adapter" / "adapter_model.safetensors")) == 2 * 4 * 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((), "asks for none"),
        (("lora={rank: 8, alpha: 8}",), "asks for rank 8"),
        (("lora={rank: 4, targets: [linear_qkv, linear_qkv]}",), "name each target once"),
    ],
    ids=["without", "another rank", "twice"],
)
def test_going_on_with_other_adapters_is_refused(
    finished: Path, changes: tuple[str, ...], message: str
) -> None:
    done = msm(
        *("train", "run.yaml", "model.checkpoint=train/sft", "out=other", *SHORT, *changes),
        cwd=finished,
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert read_checkpoint_state(resolve_checkpoint(finished / "train/sft")).adapter is not None
