"""LoRA under any layout trains what PEFT trains on the Hugging Face model, in float32."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.convert.adapters.peft_config import WEIGHTS_FILE
from megatron_msm.convert.adapters.peft_export import export_adapter
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.distributed import reference
from tests.distributed.layout_worker import NUM_STEPS, layout_name, packs_of_step
from tests.distributed.lora_worker import (
    LORA,
    OPTIMIZER,
    RANK_STABILIZED,
    LoraCase,
    train_adapters,
)
from tests.distributed.ranks import Device, run_on_ranks
from tests.tiny import write_tiny_llama, write_tiny_model

LAYOUTS = {
    layout_name(layout): layout
    for layout in (
        ParallelConfig(),
        ParallelConfig(data=2),
        ParallelConfig(context=2),
        ParallelConfig(pipeline=2, virtual_pipeline=2),
        ParallelConfig(tensor=2, sequence=True),
        ParallelConfig(tensor=2, pipeline=2),
    )
}
RUNS = {**dict.fromkeys(LAYOUTS, LORA), "rank-stabilized": RANK_STABILIZED}
# Families whose layers are not Llama's; these runs have a layout that splits everything.
FAMILIES = ("gemma3_text", "granite", "olmo2")
SPLIT = ParallelConfig(tensor=2, sequence=True)
CORPUS: npt.NDArray[np.int64] = np.random.default_rng(3).integers(0, 300, 4096)


@pytest.fixture(scope="module")
def hf_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model of each run."""
    # Heads that two ranks can share, three to a key/value head: the fused rows interleave.
    sizes: dict[str, Any] = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8}
    root = tmp_path_factory.mktemp("hf")
    llama = write_tiny_llama(root / "llama", **sizes)
    others = {
        name: write_tiny_model(root / name, name, hidden_size=48, **sizes) for name in FAMILIES
    }
    return {**dict.fromkeys(RUNS, llama), **others}


@pytest.fixture(scope="module")
def runs(
    hf_folders: dict[str, Path], device: Device, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """What the ranks of each run wrote."""
    root = tmp_path_factory.mktemp("base")
    bases = {folder: root / folder.name for folder in set(hf_folders.values())}
    for folder, out in bases.items():
        import_hf(folder, out)
    outs = {name: tmp_path_factory.mktemp(name) for name in hf_folders}
    cases = [
        LoraCase(
            LAYOUTS.get(name, SPLIT),
            iteration_folder(bases[folder], 0),
            outs[name],
            CORPUS,
            lora=RUNS.get(name, LORA),
        )
        for name, folder in hf_folders.items()
    ]
    for size in (1, 2, 4):
        of_size = [case for case in cases if case.layout.world_size == size]
        run_on_ranks(train_adapters, size, of_size, device=device)
    return outs


def peft_weights(checkpoint: Path, out: Path) -> dict[str, torch.Tensor]:
    """Export the adapters of a checkpoint and read the file."""
    export_adapter(checkpoint, out, base="acme/tiny", force=True)
    weights: dict[str, torch.Tensor] = load_file(out / WEIGHTS_FILE)
    return weights


def peft_model(hf_folder: Path, weights: dict[str, torch.Tensor], lora: LoraConfig) -> Any:
    """Return PEFT's model with these adapters."""
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model, set_peft_model_state_dict

    targets = sorted({name.split(".")[-3] for name in weights})
    settings: dict[str, Any] = {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "use_rslora": lora.rank_stabilized,
    }
    config = PeftLoraConfig(**settings, target_modules=targets, task_type="CAUSAL_LM")
    model: Any = get_peft_model(reference.load_model(hf_folder), config)
    result: Any = set_peft_model_state_dict(model, weights)
    assert not result.unexpected_keys
    return model


@pytest.mark.parametrize("name", [*RUNS, *FAMILIES])
def test_losses_norms_and_adapters_after_steps_are_pefts(
    name: str, device: Device, runs: dict[str, Path], hf_folders: dict[str, Path], tmp_path: Path
) -> None:
    run = runs[name]
    start, end = (peft_weights(run / when, tmp_path / when) for when in ("start", "end"))
    model = peft_model(hf_folders[name], start, RUNS.get(name, LORA))
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trainable) == len(start)

    optimizer = torch.optim.AdamW(
        trainable.values(),
        lr=OPTIMIZER.lr,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.eps,
        weight_decay=OPTIMIZER.weight_decay,
    )
    steps = json.loads((run / "steps.json").read_text())
    for step in range(NUM_STEPS):
        optimizer.zero_grad()
        loss = reference.global_loss(model, packs_of_step(step, CORPUS))
        loss.backward()
        assert OPTIMIZER.clip_grad_norm is not None
        norm = torch.nn.utils.clip_grad_norm_(trainable.values(), OPTIMIZER.clip_grad_norm)
        if name in RUNS:
            assert float(norm) > OPTIMIZER.clip_grad_norm, "clipping must be at work"
        optimizer.step()
        assert steps[step][0] == pytest.approx(loss.item(), rel=device.relative)
        assert steps[step][1] == pytest.approx(float(norm), rel=device.relative)

    for key, parameter in trainable.items():
        found = end[key.replace(".default", "")]
        difference = (found - parameter.detach()).norm() / parameter.detach().norm()
        assert float(difference) < 10 * device.relative, key


def test_initial_adapters_do_not_depend_on_the_layout(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    expected, *others = [peft_weights(runs[name] / "start", tmp_path / name) for name in LAYOUTS]
    for found in others:
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    a = expected["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"]
    bound = a.shape[1] ** -0.5
    assert 0.9 * bound < float(a.abs().max()) <= bound
