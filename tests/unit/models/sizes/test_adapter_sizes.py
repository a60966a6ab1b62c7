import pytest

from megatron_msm.config.lora import LoraConfig
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.adapter_sizes import num_adapter_parameters
from tests.unit.models.shapes import LLAMA_8B, QWEN25_14B, QWEN25_32B


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(QWEN25_14B, 275_251_200), (LLAMA_8B, 167_772_160), (QWEN25_32B, 536_870_912)],
    ids=["Qwen2.5-14B", "Llama-8B", "Qwen2.5-32B"],
)
def test_trainable_parameters_of_the_papers_adapter_are_those_that_peft_counts(
    shape: ModelShape, expected: int
) -> None:
    assert num_adapter_parameters(shape, LoraConfig(rank=64, alpha=128)) == expected
