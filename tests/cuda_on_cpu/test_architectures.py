"""Each architecture of Transformer Engine's layers computes what transformers computes (emulated).

In bf16: a bound of 2% on a difference, relative to the largest number of a tensor's kind.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.distributed import reference
from tests.distributed.layout_worker import (
    gradients,
    joined,
    load,
    logits_of_packs,
    packs_of_step,
    save,
)
from tests.distributed.ranks import run_on_ranks
from tests.distributed.test_architectures import MODELS
from tests.distributed.test_same_mathematics import relative_difference
from tests.tiny import write_tiny_model

CORPUS = np.random.default_rng(3).integers(0, 300, 4096)
ON_GPU = RuntimeConfig(device="cuda", dtype="bf16")
ONE = ParallelConfig()
RELATIVE = 0.02


def write_what_it_computes(checkpoint: Path, hf_folder: Path, out: Path) -> None:
    """Write logits, gradients in the place of weights, and the weights loaded in two ways."""
    from megatron_msm.train.checkpoints.hf_loading import load_hf

    with joined(ONE, ON_GPU) as (runtime, ranks):
        rank = load(ONE, checkpoint, runtime, ranks)
        torch.save(logits_of_packs(rank, packs_of_step(0, CORPUS)), out / "logits.pt")
        save(rank, gradients(rank, CORPUS), out / "gradients")
        loaded = {name: weight.detach().clone() for name, weight in weights(rank.chunks[0])}
        for _, weight in weights(rank.chunks[0]):
            weight.data.fill_(torch.nan)
        load_hf(hf_folder, rank.chunks)
        for name, weight in weights(rank.chunks[0]):
            assert torch.equal(weight, loaded[name]), name
        save(rank, rank.chunks, out / "weights")


def weights(chunk: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return list(chunk.named_parameters())


# Seen: one expert gradient 23% apart. A token near the border may have another expert in bf16
# than in float32; that this is all has not been shown.
_OPEN = pytest.mark.xfail(reason="one expert's gradient differs: open", strict=False)
NAMES = [
    pytest.param(name, marks=[_OPEN] if name == "qwen3_moe_unnormalised" else []) for name in MODELS
]


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_transformers_computes(name: str, tmp_path: Path) -> None:
    model_type, changes = MODELS[name]
    hf = write_tiny_model(tmp_path / "hf", model_type, dtype="bfloat16", **changes)
    import_hf(hf, tmp_path / "base")
    run_on_ranks(write_what_it_computes, 1, iteration_folder(tmp_path / "base", 0), hf, tmp_path)
    model = reference.load_model(hf)
    packs = packs_of_step(0, CORPUS)
    logits = [reference.logits_of_pack(model, pack).detach() for pack in packs]
    found_logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    for found, wanted in zip(found_logits, logits, strict=True):
        assert relative_difference(found[:, : wanted.shape[1]].float(), wanted) < RELATIVE
    check_export(tmp_path / "weights", reference.saved_tensors(model, tmp_path / "w"), 0.0)
    reference.global_loss(model, packs).backward()
    wanted_gradients = reference.saved_tensors(model, tmp_path / "g", gradients=True)
    check_export(tmp_path / "gradients", wanted_gradients, RELATIVE)


def check_export(checkpoint: Path, wanted: dict[str, torch.Tensor], bound: float) -> None:
    """Export a checkpoint and compare it, tensor by tensor."""
    from safetensors.torch import load_file

    exported = checkpoint.with_name(f"{checkpoint.name}_hf")
    export_hf(checkpoint, exported)
    found = load_file(exported / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert relative_difference(found[name].float(), tensor.float()) <= bound, name
