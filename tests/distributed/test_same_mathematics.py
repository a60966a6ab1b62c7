"""Any layout computes what plain PyTorch computes on the Hugging Face model, in float32."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.distributed import reference
from tests.distributed.layout_worker import (
    Layout,
    packs_of_step,
    save_mathematics,
)
from tests.distributed.ranks import run_on_ranks
from tests.tiny import write_tiny_llama

LAYOUTS = [
    Layout(),
    Layout(tensor=3),
    Layout(pipeline=2),
    Layout(tensor=3, pipeline=2),
    Layout(data=2),
]
RELATIVE = 1e-4

# Grouped-query attention everywhere; what differs is whether embeddings are tied, and the heads.
MODELS: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False, "head_dim": 8, "rope_theta": 500000.0},
}


@pytest.fixture(scope="module", params=MODELS, ids=str)
def hf_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"hf_{request.param}")
    return write_tiny_llama(folder, **MODELS[request.param])


@pytest.fixture(scope="module")
def checkpoint(hf_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("megatron") / "base"
    import_hf(hf_folder, root)
    return iteration_folder(root, 0)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest expected magnitude."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def check_tensors_agree(found_folder: Path, expected: dict[str, torch.Tensor]) -> None:
    """Compare an exported folder's tensors with the reference's, one by one."""
    found = load_file(found_folder / "model.safetensors")
    assert found.keys() == expected.keys()
    worst = {name: relative_difference(found[name], expected[name]) for name in expected}
    assert max(worst.values()) < RELATIVE, sorted(worst.items(), key=lambda item: -item[1])[:3]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_logits_gradients_and_weights_after_steps(
    layout: Layout, hf_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    model = reference.load_model(hf_folder)
    vocab_size = model.config.vocab_size
    packs = packs_of_step(0, num=4, seq_length=48, vocab_size=vocab_size)

    run_on_ranks(save_mathematics, layout.config.world_size, layout, checkpoint, tmp_path)

    for data_rank in range(layout.data):
        logits = torch.load(tmp_path / f"logits_{data_rank}.pt", weights_only=True)
        for pack, found in zip(packs[data_rank :: layout.data], logits, strict=True):
            expected = reference.logits_of_pack(model, pack)
            assert relative_difference(found[:, :vocab_size], expected) < RELATIVE

    reference.global_loss(model, packs).backward()
    tied = model.config.tie_word_embeddings
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not (tied and name == "lm_head.weight")
    }
    export_hf(tmp_path / "gradients", tmp_path / "hf_gradients")
    check_tensors_agree(tmp_path / "hf_gradients", gradients)

    model = reference.load_model(hf_folder)
    expected_steps = reference.train(model, vocab_size=vocab_size)
    found_steps = json.loads((tmp_path / "steps.json").read_text())
    for (loss, norm), (found_loss, _, found_norm) in zip(expected_steps, found_steps, strict=True):
        assert found_loss == pytest.approx(loss, rel=RELATIVE)
        assert found_norm == pytest.approx(norm, rel=RELATIVE)
    export_hf(tmp_path / "weights", tmp_path / "hf_weights")
    check_tensors_agree(tmp_path / "hf_weights", dict(model.named_parameters()))
