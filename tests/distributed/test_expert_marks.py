"""The gradient norm counts every tensor parallel rank's experts, also without the layers' marks."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.distributed.layout_worker import Case, joined, load, train_steps
from tests.distributed.ranks import run_on_ranks
from tests.tiny import write_tiny_model

CASES = {
    "experts over tensor ranks": ParallelConfig(tensor=2, sequence=True, expert=2),
    "no tensor parallelism": ParallelConfig(pipeline=2),
}


def save_norms(folder: Path) -> None:
    """Make a step with expert weights as Transformer Engine's grouped layers leave them."""
    from megatron.core.models.gpt.gpt_model import GPTModel

    from megatron_msm.models import build
    from megatron_msm.train.steps.step import build_optimizer, wrap_data_parallel
    from tests.distributed.layout_worker import OPTIMIZER

    def without_marks(**settings: Any) -> GPTModel:
        model = GPTModel(**settings)
        experts = [p for p in model.parameters() if not getattr(p, "allreduce", True)]
        for parameter in experts:
            del parameter.tensor_model_parallel
        return model

    norms = {}
    for name, layout in CASES.items():
        with (
            joined(layout) as (runtime, ranks),
            mock.patch.object(build, "_model_class", return_value=without_marks),
        ):
            rank = load(layout, iteration_folder(folder / "base", 0), runtime, ranks)
            corpus = np.random.default_rng(3).integers(0, 300, 4096)
            case = Case(layout, rank.checkpoint, folder, corpus, 1e-3)
            wrapped = wrap_data_parallel(rank.chunks, runtime)
            optimizer = build_optimizer(wrapped, OPTIMIZER, runtime)
            norms[name] = train_steps(rank, wrapped, optimizer, case, range(1))[0][2]
    (folder / f"norms_{ranks.rank}.json").write_text(json.dumps(norms))


def test_the_norm_is_that_of_all_experts(tmp_path: Path) -> None:
    import_hf(write_tiny_model(tmp_path / "hf", "qwen3_moe"), tmp_path / "base")
    run_on_ranks(save_norms, 2, tmp_path)
    for rank in (0, 1):
        norms = json.loads((tmp_path / f"norms_{rank}.json").read_text())
        found, expected = norms.values()
        assert found == pytest.approx(expected, rel=1e-5)
