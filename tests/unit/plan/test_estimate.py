"""The estimate against published speeds, and its arithmetic against cases worked out by hand."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.memory import MemoryConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.run import RunConfig
from megatron_msm.errors import ConfigError
from megatron_msm.models.shape import ExpertShape, ModelShape
from megatron_msm.models.sizes.batch_shape import BatchShape, batch_shape
from megatron_msm.models.sizes.gpus import GPUS, MatmulPrecision
from megatron_msm.plan.activations import layer_bytes_per_position, layers_in_flight
from megatron_msm.plan.estimate import estimate_run
from megatron_msm.plan.memory import MemoryModel, Precision
from megatron_msm.plan.show import as_data, as_text
from megatron_msm.plan.speed import SpeedModel
from megatron_msm.plan.weights import weights_of_rank
from megatron_msm.train.estimating import estimate
from tests.unit.models.shapes import (
    GEMMA3_12B,
    GEMMA3_27B,
    GRANITE_8B_BIASED,
    LLAMA_8B,
    LLAMA_70B,
    OLMO2_32B,
    QWEN3_8B,
    SMOLLM2_135M,
)

BF16 = Precision(2)
LLAMA_70B_64_GPUS: dict[str, Any] = {"tensor": 4, "sequence": True, "virtual_pipeline": 5}
LORA_8 = LoraConfig(rank=8, alpha=8)


def batch(seq_length: int, global_batch_size: int, micro_batch_size: int = 1) -> BatchShape:
    return BatchShape("phase", seq_length, micro_batch_size, global_batch_size, align=4)


# tokens/s and GPU on H100s. NVIDIA dgxc-benchmarking 25.04 (llama3.1), Megatron-Bridge 26.06 (SFT),
# NeMo AutoModel docs/performance-summary.mdx (LoRA).
PUBLISHED = [
    (LLAMA_8B, "bf16", None, {"context": 2, "data": 4}, batch(8192, 128), 10_682),
    (LLAMA_8B, "fp8", None, {"context": 2, "data": 4}, batch(8192, 128), 14_048),
    (LLAMA_8B, "bf16", None, {"context": 2, "data": 64}, batch(8192, 2048), 10_630),
    (
        *(LLAMA_70B, "bf16", None),
        {**LLAMA_70B_64_GPUS, "pipeline": 4, "context": 2, "data": 2},
        *(batch(8192, 128), 1_118),
    ),
    (
        *(LLAMA_70B, "fp8", None),
        {**LLAMA_70B_64_GPUS, "pipeline": 8, "data": 2},
        *(batch(8192, 128), 1_662),
    ),
    (
        *(LLAMA_70B, "fp8", None),
        {**LLAMA_70B_64_GPUS, "pipeline": 4, "data": 2},
        *(batch(4096, 32), 1_638),
    ),
    (LLAMA_8B, "bf16", LORA_8, {}, batch(4096, 32, 2), 12_473),
]


@pytest.mark.parametrize(("shape", "matmul", "lora", "sizes", "of_step", "published"), PUBLISHED)
def test_speed_is_within_15_percent_of_what_was_published(
    shape: ModelShape,
    matmul: MatmulPrecision,
    lora: LoraConfig | None,
    sizes: dict[str, Any],
    of_step: BatchShape,
    published: int,
) -> None:
    parallel = ParallelConfig(**sizes)
    model = SpeedModel(shape, lora, MemoryConfig(), BF16, matmul, GPUS["h100"])
    tokens = of_step.global_batch_size * of_step.seq_length / parallel.world_size
    found = tokens / model.step_time(parallel, of_step).total_s
    assert found == pytest.approx(published, rel=0.15)


def test_weights_of_all_ranks_are_the_models() -> None:
    whole = weights_of_rank(LLAMA_70B, ParallelConfig(), None, 0)
    assert whole.total == whole.trainable == LLAMA_70B.num_parameters
    stages = [weights_of_rank(LLAMA_70B, ParallelConfig(pipeline=4), None, r) for r in range(4)]
    assert sum(stage.total for stage in stages) == LLAMA_70B.num_parameters
    tied = [weights_of_rank(SMOLLM2_135M, ParallelConfig(pipeline=2), None, r) for r in range(2)]
    copy = SMOLLM2_135M.vocab_size * SMOLLM2_135M.hidden_size
    assert sum(stage.total for stage in tied) == SMOLLM2_135M.num_parameters + copy


def test_norms_are_on_each_tensor_rank_and_those_over_all_heads_are_split() -> None:
    whole = weights_of_rank(OLMO2_32B, ParallelConfig(), None, 0)
    assert whole.total == OLMO2_32B.num_parameters
    split = weights_of_rank(OLMO2_32B, ParallelConfig(tensor=8, pipeline=2), None, 0)
    of_layer = (2 * 5120 * (5120 + 1024) + 3 * 5120 * 27648 + 5120 + 1024) // 8 + 2 * 5120
    assert split.total == 32 * of_layer + 100352 * 5120 // 8


def test_biases_of_outputs_are_on_each_tensor_rank() -> None:
    whole = weights_of_rank(GRANITE_8B_BIASED, ParallelConfig(), None, 0)
    assert whole.total == GRANITE_8B_BIASED.num_parameters
    split = weights_of_rank(GRANITE_8B_BIASED, ParallelConfig(tensor=8, pipeline=2), None, 0)
    matrices = 2 * 4096 * (4096 + 1024) + 3 * 4096 * 12800
    of_layer = (matrices + 4096 + 2 * 1024 + 2 * 12800) // 8 + 2 * 4096 + 2 * 4096
    assert split.total == 20 * of_layer + 49152 * 4096 // 8


@pytest.mark.parametrize("shape", [GEMMA3_12B, GEMMA3_27B])
def test_norms_on_both_sides_are_counted(shape: ModelShape) -> None:
    shape = shape.model_copy(update={"vocab_size": 262144})  # rows without padding
    assert weights_of_rank(shape, ParallelConfig(), None, 0).total == shape.num_parameters
    without = shape.model_copy(update={"norms_after": False})
    norms = 2 * shape.hidden_size * shape.num_layers
    assert shape.num_parameters - without.num_parameters == norms
    kept, less = (
        layer_bytes_per_position(it, ParallelConfig(), MemoryConfig(), dtype_bytes=2)
        for it in (shape, without)
    )
    assert kept - less == 2 * 2 * shape.hidden_size


def test_a_large_vocabulary_fits_by_its_chunks() -> None:
    # Gemma 3 12B on one node: all logits of 8,192 tokens at once would take 17 GB more.
    layout = ParallelConfig(tensor=4, sequence=True, data=2)
    chunks, whole = (
        MemoryModel(GEMMA3_12B, None, MemoryConfig(loss_chunk_tokens=tokens), BF16)
        .of_rank(layout, batch(8192, 16), 0)
        .logits_bytes
        for tokens in (1024, None)
    )
    assert whole - chunks == 7 * 1024 * 262208 / 4 * 8


def test_experts_are_counted_and_assigned() -> None:
    experts = ExpertShape(
        num_experts=128, experts_per_token=8, ffn_hidden_size=768, normalize_weights=True
    )
    shape = QWEN3_8B.model_copy(update={"experts": experts, "qk_norm": True})
    assert weights_of_rank(shape, ParallelConfig(), None, 0).total == shape.num_parameters
    assigned = weights_of_rank(shape, ParallelConfig(data=8, expert=8), None, 0)
    assert assigned.experts == shape.num_layers * 16 * 3 * shape.hidden_size * 768
    # One expert's state is kept once: there are no copies to share it.
    found = MemoryModel(shape, None, MemoryConfig(), BF16).of_rank(
        ParallelConfig(data=8, expert=8), batch(4096, 64), 0
    )
    assert found.optimizer_bytes == 12 * (
        assigned.experts + (assigned.total - assigned.experts) / 8
    )


def test_bytes_of_a_weight() -> None:
    full = MemoryModel(LLAMA_8B, None, MemoryConfig(), BF16)
    found = full.of_rank(ParallelConfig(data=4, context=2), batch(8192, 8), 0)
    per_weight = (
        found.weights_bytes + found.gradients_bytes + found.optimizer_bytes
    ) / LLAMA_8B.num_parameters
    assert per_weight == pytest.approx(2 + 4 + 12 / 8)
    lora = MemoryModel(LLAMA_8B, LoraConfig(), MemoryConfig(), BF16)
    adapters = lora.of_rank(ParallelConfig(), batch(8192, 8), 0)
    assert adapters.gradients_bytes == 4 * 167_772_160
    assert adapters.weights_bytes == 2 * (LLAMA_8B.num_parameters + 167_772_160)


def test_micro_batches_in_flight_follow_the_schedules() -> None:
    one_f_one_b = ParallelConfig(pipeline=4)
    assert [layers_in_flight(LLAMA_8B, one_f_one_b, rank, 16) for rank in range(4)] == [
        *(4 * 8, 3 * 8, 2 * 8, 1 * 8)
    ]
    assert layers_in_flight(LLAMA_8B, one_f_one_b, 0, 2) == 2 * 8
    interleaved = ParallelConfig(pipeline=4, virtual_pipeline=2)
    # 2 (4 - 1) + 4 passes of warm-up and one in work, of 4 layers each.
    assert layers_in_flight(LLAMA_8B, interleaved, 0, 16) == 11 * 4


RUN: dict[str, Any] = {
    "out": "train",
    "model": {"checkpoint": "base"},
    "parallel": {"tensor": 2, "sequence": True, "data": 4},
    "phases": [
        {
            "name": "midtrain",
            "data": {"prefixes": ["docs"]},
            "seq_length": 8192,
            "global_batch_size": 128,
            "duration": {"steps": 100},
            "optimizer": {"lr": 1e-5},
        }
    ],
}


def run_config(**changes: Any) -> RunConfig:
    return RunConfig.model_validate({**RUN, **changes})


def test_layouts_are_ranked_and_all_fit() -> None:
    found = estimate_run(run_config(), LLAMA_8B, {"midtrain": 100}, num_gpus=8, gpu=GPUS["h100"])
    assert found.own is not None
    assert found.own.parallel.tensor == 2
    seconds = [layout.steps["midtrain"].total_s for layout in found.layouts]
    assert seconds == sorted(seconds)
    assert len(seconds) > 3
    assert all(layout.fits for layout in found.layouts)
    assert found.gpu_hours == pytest.approx(8 * 100 * found.own.steps["midtrain"].total_s / 3600)
    activations = list(found.recompute.values())
    assert activations == sorted(activations, reverse=True)


def test_a_model_that_fits_nowhere_says_so_and_needs_no_layout() -> None:
    found = estimate_run(run_config(), LLAMA_70B, {"midtrain": 100}, num_gpus=2, gpu=GPUS["a100"])
    assert found.chosen is None
    assert found.gpu_hours is None
    assert "No legal layout fits" in "".join(as_text(found, num_layouts=3))
    assert as_data(found)["chosen"] is None
    assert as_data(found)["save"] is None


def test_recomputation_is_searched_where_a_model_does_not_fit_as_it_is() -> None:
    phase = {**RUN["phases"][0], "seq_length": 4096}
    config = run_config(parallel={"data": 8}, phases=[phase])
    found = estimate_run(config, QWEN3_8B, {"midtrain": 100}, num_gpus=8, gpu=GPUS["h100"])
    assert found.own is not None
    assert not found.own.fits
    mended = found.own_settings
    assert mended is not None
    assert mended.fits
    assert mended.overrides == ("memory.recompute=selective", "memory.recompute_modules=[mlp]")
    assert mended.memory.total_bytes / 2**30 == pytest.approx(69.2, abs=0.1)
    text = "\n".join(as_text(found, num_layouts=9))
    assert "DOES NOT FIT" in text
    assert (
        "it fits in 69.2 GiB with memory.recompute=selective 'memory.recompute_modules=[mlp]'"
    ) in text


def test_the_optimizer_goes_to_the_cpu_only_where_nothing_else_fits() -> None:
    config = run_config(parallel={"data": 2})
    roomy = estimate_run(config, SMOLLM2_135M, {"midtrain": 1}, num_gpus=2, gpu=GPUS["h100"])
    assert {it.settings.optimizer_offload for it in roomy.layouts} == {0.0}
    tight = estimate_run(config, LLAMA_8B, {"midtrain": 1}, num_gpus=2, gpu=GPUS["h100"])
    offloaded = [it for it in tight.layouts if it.settings.optimizer_offload]
    assert offloaded
    [of_step] = [batch_shape(phase) for phase in config.phases]
    without = MemoryModel(LLAMA_8B, None, MemoryConfig(recompute="full"), BF16)
    for layout in offloaded:
        assert f"memory.optimizer_offload={layout.settings.optimizer_offload}" in layout.overrides
        needed = without.fullest_rank(layout.parallel, of_step).total_bytes
        assert needed > GPUS["h100"].memory_gib * 2**30 - 3 * 2**30 > layout.memory.total_bytes


def test_fp8_on_a_gpu_without_it() -> None:
    config = run_config(runtime={"fp8": {}})
    with pytest.raises(ConfigError, match=r"runtime.fp8: the A100 .* no FP8"):
        estimate_run(config, LLAMA_8B, {"midtrain": 100}, num_gpus=8, gpu=GPUS["a100"])


def test_only_a_config_json_is_needed(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_bytes(orjson.dumps(config))
    phase = {**RUN["phases"][0], "duration": {"epochs": 1}}
    found = estimate(run_config(phases=[phase]), gpu="h100", num_gpus=4, model=tmp_path)
    assert found.num_steps == {"midtrain": None}
    assert found.seconds is None
    text = "\n".join(as_text(found, num_layouts=2))
    assert "steps not known" in text
    assert "estimates" in text
    assert "a checkpoint: 1.8 GiB; saving takes 0.4 GiB of host memory a rank, 1.8 a node" in text
