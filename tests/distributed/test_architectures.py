"""Every architecture computes what its Hugging Face class computes, in float32, in any layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.distributed import reference
from tests.distributed.layout_worker import Case, layout_name, packs_of_step, save_mathematics
from tests.distributed.ranks import Device, run_on_ranks
from tests.distributed.test_same_mathematics import check_tensors_agree, relative_difference
from tests.tiny import ARCHITECTURES, YARN, write_tiny_model

CORPUS = np.random.default_rng(3).integers(0, 300, 4096)
LR = 1e-3
# The same with the one switch of Qwen3-MoE that changes the arithmetic of the router.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ARCHITECTURES},
    # In a layer that does not rotate, a bias of the keys moves all scores of a query alike: its
    # gradient is nothing but rounding, of which AdamW makes whole steps.
    "smollm3": ("smollm3", {"attention_bias": False}),
    "qwen3_moe_unnormalised": ("qwen3_moe", {"norm_topk_prob": False}),
    "llama_biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_yarn": ("llama", YARN),
    "qwen2_yarn": ("qwen2", YARN),
}
L = ParallelConfig
MOE = [name for name, (model_type, _) in MODELS.items() if model_type in ("mixtral", "qwen3_moe")]
DENSE = [name for name in MODELS if name not in MOE]
# Dense families whose layers have pieces that megatron-core's have not.
NOT_LLAMAS = ("gemma3_text", "granite", "olmo2", "olmo3", "smollm3")
CASES = [
    *((L(tensor=2), name) for name in DENSE),
    *((L(pipeline=2), name) for name in MODELS),
    *((L(tensor=2, sequence=True), name) for name in ("qwen3", *NOT_LLAMAS)),
    *((L(context=2), name) for name in ("qwen2_yarn", *NOT_LLAMAS)),
    *((L(tensor=2, sequence=True, expert=2), name) for name in MOE),
    *((L(data=2, expert=2), name) for name in MOE),
]


# Experts assigned over data, context and tensor ranks, within pipeline stages.
FOUR_RANKS = [
    (L(data=4, expert=4), "qwen3_moe"),
    (L(context=2, data=2, expert=4), "qwen3_moe"),
    (L(pipeline=2, data=2, expert=2), "qwen3_moe"),
    (L(pipeline=2, context=2, expert=2), "qwen3_moe"),
    (L(tensor=2, sequence=True, data=2, expert=2), "qwen3_moe"),
]
Run = tuple[ParallelConfig, str]


@pytest.fixture(scope="module")
def hf_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hf")
    return {
        name: write_tiny_model(root / name, model_type, **changes)
        for name, (model_type, changes) in MODELS.items()
    }


@pytest.fixture(scope="module")
def runs(
    hf_folders: dict[str, Path], device: Device, tmp_path_factory: pytest.TempPathFactory
) -> dict[Run, Path]:
    """What two ranks wrote for each case."""
    return run_cases(CASES, hf_folders, device, tmp_path_factory.mktemp("runs"))


def run_cases(
    wanted: list[Run], hf_folders: dict[str, Path], device: Device, root: Path
) -> dict[Run, Path]:
    """Run the cases in one set of processes."""
    for name in {name for _, name in wanted}:
        import_hf(hf_folders[name], root / name)
    cases = {}
    for layout, name in wanted:
        out = root / f"{layout_name(layout)}-{name}"
        out.mkdir()
        cases[layout, name] = Case(layout, iteration_folder(root / name, 0), out, CORPUS, lr=LR)
    world_size = wanted[0][0].world_size
    run_on_ranks(save_mathematics, world_size, list(cases.values()), [], device=device)
    return {key: case.out for key, case in cases.items()}


@pytest.mark.slow
def test_experts_on_four_ranks(hf_folders: dict[str, Path], device: Device, tmp_path: Path) -> None:
    four = run_cases(FOUR_RANKS, hf_folders, device, tmp_path)
    check_case("qwen3_moe", hf_folders, four, device, tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_logits_gradients_and_weights_are_those_of_transformers(
    name: str,
    hf_folders: dict[str, Path],
    runs: dict[Run, Path],
    device: Device,
    tmp_path: Path,
) -> None:
    check_case(name, hf_folders, runs, device, tmp_path)


def check_case(
    name: str,
    hf_folders: dict[str, Path],
    runs: dict[Run, Path],
    device: Device,
    tmp_path: Path,
) -> None:
    """Compare what the ranks wrote for a model with what transformers computes."""
    model = reference.load_model(hf_folders[name])
    packs = packs_of_step(0, CORPUS)
    logits = [reference.logits_of_pack(model, pack).detach() for pack in packs]
    reference.global_loss(model, packs).backward()
    gradients = reference.saved_tensors(model, tmp_path / "g", gradients=True)
    model = reference.load_model(hf_folders[name])
    steps = reference.train(model, CORPUS, peak=LR)
    weights = reference.saved_tensors(model, tmp_path / "w")
    for layout in [layout for layout, case in runs if case == name]:
        out = runs[layout, name]
        found_logits = torch.load(out / "logits_0.pt", weights_only=True)
        for found, wanted in zip(found_logits, logits[:: layout.data], strict=True):
            assert relative_difference(found[:, : wanted.shape[1]], wanted) < device.relative
        found_steps = json.loads((out / "steps.json").read_text())
        for (loss, norm), (found_loss, _, found_norm) in zip(steps, found_steps, strict=True):
            assert found_loss == pytest.approx(loss, rel=device.relative)
            assert found_norm == pytest.approx(norm, rel=device.relative)
        for kind, wanted_tensors in (("gradients", gradients), ("weights", weights)):
            exported = tmp_path / f"{layout_name(layout)}-{kind}"
            export_hf(out / kind, exported, dtype="float32")
            check_tensors_agree(exported, wanted_tensors, relative=device.relative)
