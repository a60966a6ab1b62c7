"""Frozen weights stay, the others train as in plain PyTorch, under any layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.convert.importing import import_hf
from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import iteration_folder
from megatron_msm.models.sizes.freezing import frozen_keys
from tests.distributed import reference
from tests.distributed.layout_worker import (
    NUM_STEPS,
    OPTIMIZER,
    Case,
    joined,
    layout_name,
    load,
    train_steps,
)
from tests.distributed.ranks import Device, run_on_ranks
from tests.tiny import write_tiny_llama
from tests.unit.models.shapes import LLAMA_8B

PATTERNS = ("model.embed_tokens.*", "model.layers.0.*", "*.mlp.down_proj.weight")
LAYOUTS = [ParallelConfig(data=2), ParallelConfig(pipeline=2), ParallelConfig(tensor=2)]
CORPUS = np.random.default_rng(3).integers(0, 300, 4096)
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}


def train_frozen(folder: Path) -> None:
    """Train under each layout; write losses and norms, and check the frozen weights."""
    from megatron_msm.models.hf_config import read_model_shape
    from megatron_msm.models.layers.freezing import freeze
    from megatron_msm.train.checkpoints.checkpoint import chunk_name, sharded_state
    from megatron_msm.train.steps.step import build_optimizer, wrap_data_parallel

    keys = frozen_keys(read_model_shape(folder / "hf"), PATTERNS)
    for layout in LAYOUTS:
        with joined(layout) as (runtime, ranks):
            rank = load(layout, iteration_folder(folder / "base", 0), runtime, ranks)
            (chunk,) = rank.chunks
            freeze(chunk, sharded_state([chunk], None, is_loading=False)[chunk_name(0)], keys)
            before = {name: p.detach().clone() for name, p in chunk.named_parameters()}
            wrapped = wrap_data_parallel(rank.chunks, runtime)
            optimizer = build_optimizer(wrapped, OPTIMIZER, runtime)
            case = Case(layout, rank.checkpoint, folder, CORPUS, 1e-3)
            results = train_steps(rank, wrapped, optimizer, case, range(NUM_STEPS))
            for name, parameter in chunk.named_parameters():
                assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
            if ranks.rank == 0:
                (folder / f"{layout_name(layout)}.json").write_text(json.dumps(results))


def test_the_others_train_as_in_plain_pytorch(device: Device, tmp_path: Path) -> None:
    import_hf(write_tiny_llama(tmp_path / "hf", **HEADS), tmp_path / "base")
    model = reference.load_model(tmp_path / "hf")
    for name, parameter in model.named_parameters():
        is_frozen = "embed_tokens" in name or ".layers.0." in name or "down_proj" in name
        parameter.requires_grad_(not is_frozen)
    expected = reference.train(model, CORPUS, peak=1e-3)
    run_on_ranks(train_frozen, 2, tmp_path, device=device)
    for layout in LAYOUTS:
        steps = json.loads((tmp_path / f"{layout_name(layout)}.json").read_text())
        found = [(loss, norm) for loss, _, norm in steps]
        assert np.array(found) == pytest.approx(np.array(expected), rel=device.relative)


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["model.layer.0.*"], r"'model\.layer\.0\.\*' names no weight"),
        (["*.q_proj.weight"], r"linear_qkv\.weight .*q_proj\.weight would be frozen and .*k_proj"),
        (["*"], "every weight of the model is named"),
    ],
)
def test_what_cannot_be_frozen_is_said(patterns: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        frozen_keys(LLAMA_8B, patterns)
