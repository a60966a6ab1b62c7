"""What a save takes, against sums worked out by hand."""

import pytest

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.plan.memory import Precision
from megatron_msm.plan.saves import estimate_save
from tests.unit.models.shapes import LLAMA_8B

PARAMETERS = 8_030_261_248  # Meta-Llama-3.1-8B, counted in its files


def test_an_8b_on_eight_ranks() -> None:
    """2 bytes of weight, 4 of main weight and 8 of moments; each rank has an eighth."""
    found = estimate_save(LLAMA_8B, ParallelConfig(data=8), None, Precision(2))
    assert found.size_bytes == 14 * PARAMETERS
    assert found.rank_bytes == found.size_bytes / 8
    assert found.node_bytes == found.size_bytes
    assert found.seconds == pytest.approx(14 * PARAMETERS / 8e9 * (1 / 1.0 + 1 / 1.3))


def test_more_copies_take_less_of_each_host() -> None:
    sizes = [
        estimate_save(LLAMA_8B, ParallelConfig(tensor=2, data=data), None, Precision(2))
        for data in (4, 8, 16)
    ]
    assert [one.rank_bytes / sizes[0].rank_bytes for one in sizes] == [1, 0.5, 0.25]
    assert {one.size_bytes for one in sizes} == {14 * PARAMETERS}
    assert [one.num_ranks_of_node for one in sizes] == [8, 8, 8]


def test_float32_keeps_weights_and_main_weights() -> None:
    found = estimate_save(LLAMA_8B, ParallelConfig(), None, Precision(4))
    assert found.size_bytes == found.rank_bytes == 16 * PARAMETERS


def test_adapters_alone_have_state() -> None:
    lora = LoraConfig(rank=8, alpha=8)
    found = estimate_save(LLAMA_8B, ParallelConfig(data=2), lora, Precision(2))
    adapters = (found.size_bytes - 2 * PARAMETERS) / 14
    assert 0 < adapters < 0.01 * PARAMETERS
    assert found.rank_bytes == pytest.approx(found.size_bytes / 2)
