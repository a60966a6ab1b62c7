"""`msm plan`'s bytes against those that real ranks hold."""

import json
from typing import Any

import pytest

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.memory import MemoryConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import iteration_folder
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.sizes.batch_shape import BatchShape
from megatron_msm.plan.memory import MemoryModel, Precision, RankMemory
from tests.distributed.layout_worker import NUM_PACKS, SEQ_LENGTH
from tests.distributed.plan_worker import PlanCase, save_bytes
from tests.distributed.ranks import run_on_ranks
from tests.tiny import write_tiny_llama

CASES = {
    case.name: case
    for case in (
        PlanCase(ParallelConfig(data=2), None),
        PlanCase(ParallelConfig(tensor=2, sequence=True), None),
        PlanCase(ParallelConfig(pipeline=2), None),
        PlanCase(ParallelConfig(tensor=2), LoraConfig(rank=4)),
    )
}
SIZES: dict[str, Any] = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "intermediate_size": 192,
}


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, RankMemory]]:
    """Return what each case's rank 0 holds, and what the plan says."""
    folder = write_tiny_llama(tmp_path_factory.mktemp("hf"), **SIZES)
    base, out = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("out")
    import_hf(folder, base)
    shape = read_model_shape(folder)
    run_on_ranks(save_bytes, 2, list(CASES.values()), iteration_folder(base, 0), shape, out)
    of_step = BatchShape("phase", SEQ_LENGTH, 1, NUM_PACKS, align=4)
    results = {}
    for name, case in CASES.items():
        found = json.loads((out / f"{name}_0.json").read_text())
        model = MemoryModel(shape, case.lora, MemoryConfig(), Precision(4))
        results[name] = (found, model.of_rank(case.layout, of_step, found["pipeline_rank"]))
    return results


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("part", ["weights", "gradients", "optimizer"])
def test_parameters_gradients_and_optimizer_state(
    counted: dict[str, tuple[Any, RankMemory]], name: str, part: str
) -> None:
    found, planned = counted[name]
    # Buffers are padded so that data parallel ranks can share them evenly.
    assert found[part] == pytest.approx(getattr(planned, f"{part}_bytes"), rel=0.01)


def test_activations_shrink_with_the_layout_as_planned(
    counted: dict[str, tuple[Any, RankMemory]],
) -> None:
    # The plan is for fused GPU kernels. megatron-core's plain modules on the CPU keep more (the
    # parts of norms, of the rotation and of SwiGLU), but not less, and it is split the same way.
    (whole, whole_plan), (split, split_plan) = counted["dp2"], counted["tp2sp"]
    assert 1.0 < whole["activations"] / whole_plan.activations_bytes < 2.0
    found = split["activations"] / whole["activations"]
    assert found == pytest.approx(
        split_plan.activations_bytes / whole_plan.activations_bytes, rel=0.1
    )
