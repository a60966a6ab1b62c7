"""Layouts: which are legal, what is said of the others, and what is proposed instead."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.errors import ConfigError
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.batch_shape import BatchShape
from megatron_msm.models.sizes.layout import (
    balanced_layers,
    check_layout,
    legal_layouts,
    violations,
)
from tests.unit.models.shapes import LLAMA_70B, QWEN3_30B_A3B, QWEN25_14B, SMOLLM2_135M

BATCH = BatchShape("midtrain", seq_length=4096, micro_batch_size=1, global_batch_size=64, align=8)


def layout(**sizes: Any) -> ParallelConfig:
    return ParallelConfig(**sizes)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"sequence": True}, "needs tensor > 1"),
        ({"virtual_pipeline": 2}, "needs pipeline > 1, found 1"),
        ({"pipeline": 2, "layers_per_stage": [1, 2, 3]}, "3 numbers, but pipeline 2 x"),
        ({"expert": 3, "data": 4}, "3 does not divide tensor 1 x context 1 x data 4 = 4"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused_by_the_section(
    sizes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        layout(**sizes)


@pytest.mark.parametrize(
    ("shape", "parallel", "arithmetic", "proposal"),
    [
        (
            SMOLLM2_135M,
            layout(tensor=2),
            "2 does not divide the model's 9 attention heads (remainder 1)",
            "parallel.pipeline=2",
        ),
        (
            QWEN25_14B,
            layout(tensor=16),
            "16 does not divide the model's 8 key/value heads (remainder 8)",
            "parallel.tensor=8 parallel.pipeline=2",
        ),
        (
            SMOLLM2_135M,
            layout(pipeline=4),
            "4 x virtual_pipeline 1 = 4 stages do not divide the model's 30 layers (remainder 2)",
            "parallel.pipeline=4 parallel.layers_per_stage=[7,8,8,7]",
        ),
        (
            SMOLLM2_135M,
            layout(pipeline=2, layers_per_stage=(14, 15)),
            "14 + 15 = 29, but the model has 30 layers",
            "parallel.pipeline=2",
        ),
        (
            LLAMA_70B,
            layout(tensor=8, data=3),
            "global_batch_size: 64 is not a multiple of micro_batch_size 1 x data 3 = 3",
            "24 ranks: parallel.tensor=8 parallel.pipeline=3 parallel.layers_per_stage=[27,27,26]",
        ),
        (
            LLAMA_70B,
            layout(pipeline=5, virtual_pipeline=2, data=4),
            "16 micro batches a step and rank (global_batch_size 64 / 4) are not a multiple of "
            "parallel.pipeline 5",
            "on 20 ranks: parallel.pipeline=5 parallel.virtual_pipeline=1 parallel.data=4",
        ),
        (
            LLAMA_70B,
            layout(context=8),
            "align: 8 is not a multiple of 2 x context 8 = 16",
            "Set phases.midtrain.data.packing.align=16",
        ),
        (
            LLAMA_70B,
            layout(tensor=8, sequence=True, context=1024),
            "seq_length 4096 / context 1024 = 4 positions, which tensor 8 does not divide",
            "on 8192 ranks: parallel.tensor=8 parallel.sequence=false parallel.context=1024",
        ),
        (LLAMA_70B, layout(expert=2, data=2), "the model has no experts", "parallel.data=2"),
        (
            QWEN3_30B_A3B,
            layout(expert=12, data=12),
            "12 does not divide the model's 128 experts (remainder 8)",
            "global_batch_size",
        ),
        (
            QWEN3_30B_A3B,
            layout(tensor=2, data=2),
            "needs them assigned to ranks with tensor 2; set parallel.expert to a divisor of both "
            "its 128 experts and the 4 ranks of a stage",
            "on 4 ranks: parallel.tensor=2 parallel.sequence=true parallel.expert=2",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, ParallelConfig) else "",
)
def test_an_illegal_layout_is_refused_with_the_arithmetic_and_the_nearest_legal_one(
    shape: ModelShape, parallel: ParallelConfig, arithmetic: str, proposal: str
) -> None:
    with pytest.raises(ConfigError) as error:
        check_layout(shape, parallel, [BATCH])
    assert arithmetic in str(error.value)
    assert proposal in str(error.value)


def test_every_fault_is_named_at_once() -> None:
    found = list(violations(SMOLLM2_135M, layout(tensor=2, pipeline=4), [BATCH]))
    assert [sentence.split(":")[0] for sentence in found] == [
        "parallel.tensor",
        "parallel.tensor",
        "parallel.pipeline",
    ]


@given(num_ranks=st.integers(1, 48), global_batch_size=st.sampled_from([1, 6, 8, 32]))
def test_listed_layouts_are_legal_fill_the_ranks_and_differ(
    num_ranks: int, global_batch_size: int
) -> None:
    batch = BatchShape("sft", 96, 1, global_batch_size, align=1)
    found = list(legal_layouts(SMOLLM2_135M, num_ranks, [batch]))
    assert len({it.model_dump_json() for it in found}) == len(found)
    for it in found:
        assert it.world_size == num_ranks
        aligned = BatchShape("sft", 96, 1, global_batch_size, align=it.document_multiple)
        assert not list(violations(SMOLLM2_135M, it, [aligned])), str(it)


def test_listed_layouts_deal_experts_in_every_way() -> None:
    found = {it.expert for it in legal_layouts(QWEN3_30B_A3B, 16, [BATCH]) if it.pipeline == 2}
    assert found == {1, 2, 4, 8}


def test_listed_layouts_of_a_large_model_hold_what_its_users_run() -> None:
    found = {
        " ".join(it.overrides_on(ParallelConfig(), "parallel"))
        for it in legal_layouts(LLAMA_70B, 64, [BATCH])
    }
    # The layouts of NVIDIA's published 70B runs on 64 GPUs.
    assert (
        "parallel.tensor=4 parallel.pipeline=8 parallel.virtual_pipeline=5 parallel.data=2" in found
    )
    assert (
        "parallel.tensor=4 parallel.sequence=true parallel.pipeline=4 parallel.virtual_pipeline=5 "
        "parallel.context=2 parallel.data=2"
    ) in found


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [(30, 4, (7, 8, 8, 7)), (30, 3, (10, 10, 10)), (5, 4, (1, 2, 1, 1)), (80, 3, (27, 27, 26))],
)
def test_the_ends_of_an_uneven_split_get_fewer_layers(
    layers: int, stages: int, expected: tuple[int, ...]
) -> None:
    assert balanced_layers(layers, stages) == expected
