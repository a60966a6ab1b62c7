"""Config files of every architecture: read exactly, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.convert.verifying import verify
from megatron_msm.errors import CheckpointError, ConfigError
from megatron_msm.models.families.registry import ARCHITECTURES, table_for
from megatron_msm.models.families.unsupported import UNSUPPORTED
from megatron_msm.models.hf_config import read_model_shape, shape_from_hf_config
from megatron_msm.models.layers.rope import inverse_frequencies
from megatron_msm.models.sizes.layout import check_layout
from megatron_msm.models.tensor_table import hf_tensors
from tests import tiny

# The fields of published config.json files that decide the weights.
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "Llama-3.1-8B": (
        {
            "model_type": "llama",
            "num_hidden_layers": 32,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
        },
        8_030_261_248,
    ),
    # The text models of Gemma 3, whose text_config says no more than what is not the default.
    "Gemma-3-12B": (
        {
            "model_type": "gemma3_text",
            "num_hidden_layers": 48,
            "hidden_size": 3840,
            "intermediate_size": 15360,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        11_766_034_176,
    ),
    "Gemma-3-27B": (
        {
            "model_type": "gemma3_text",
            "num_hidden_layers": 62,
            "hidden_size": 5376,
            "intermediate_size": 21504,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "query_pre_attn_scalar": 168,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        27_009_346_304,
    ),
    "Mistral-7B-v0.1": (
        {
            "model_type": "mistral",
            "num_hidden_layers": 32,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 32000,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "rms_norm_eps": 1e-5,
        },
        7_241_732_096,
    ),
    "Granite-3.1-8B": (
        {
            "model_type": "granite",
            "num_hidden_layers": 40,
            "hidden_size": 4096,
            "intermediate_size": 12800,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 49155,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000000.0,
            "tie_word_embeddings": True,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.0078125,
            "residual_multiplier": 0.22,
            "logits_scaling": 16.0,
        },
        8_170_848_256,
    ),
    "Mixtral-8x7B-v0.1": (
        {
            "model_type": "mixtral",
            "num_hidden_layers": 32,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "vocab_size": 32000,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
        },
        46_702_792_704,
    ),
    "Olmo-3-1125-32B": (
        {
            "model_type": "olmo3",
            "num_hidden_layers": 64,
            "hidden_size": 5120,
            "intermediate_size": 27648,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "vocab_size": 100278,
            "max_position_embeddings": 65536,
            "sliding_window": 4096,
            "rms_norm_eps": 1e-6,
            "rope_theta": 500000,
            "rope_scaling": {
                "attention_factor": 1.2079441541679836,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "yarn",
            },
        },
        32_233_522_176,
    ),
    "SmolLM3-3B": (
        {
            "model_type": "smollm3",
            "num_hidden_layers": 36,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "vocab_size": 128256,
            "max_position_embeddings": 65536,
            "rms_norm_eps": 1e-6,
            "rope_theta": 5000000.0,
            "tie_word_embeddings": True,
        },
        3_075_098_624,
    ),
    "OLMo-2-0325-32B": (
        {
            "model_type": "olmo2",
            "num_hidden_layers": 64,
            "hidden_size": 5120,
            "intermediate_size": 27648,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "vocab_size": 100352,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_theta": 500000,
        },
        32_234_279_936,
    ),
    "Qwen2.5-14B": (
        {
            "model_type": "qwen2",
            "num_hidden_layers": 48,
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "vocab_size": 152064,
            "max_position_embeddings": 131072,
            "sliding_window": 131072,
            "use_sliding_window": False,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
        },
        14_770_033_664,
    ),
    "Qwen3-8B": (
        {
            "model_type": "qwen3",
            "num_hidden_layers": 36,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000,
            "rope_scaling": None,
        },
        8_190_735_360,
    ),
    "Qwen3-30B-A3B": (
        {
            "model_type": "qwen3_moe",
            "num_hidden_layers": 48,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        },
        30_532_122_624,
    ),
}


def shape_of(name: str, **changes: Any) -> Any:
    return shape_from_hf_config(PUBLISHED[name][0] | changes, source="config.json")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_number_of_weights(name: str) -> None:
    shape, expected = shape_of(name), PUBLISHED[name][1]
    assert shape.num_parameters == expected
    sizes = [torch.Size(size).numel() for _, size in hf_tensors(table_for(shape).expand(shape))]
    assert sum(sizes) == expected


def test_a_sliding_window_bounds_the_length_and_one_that_is_off_does_not() -> None:
    assert shape_of("Mistral-7B-v0.1").max_position_embeddings == 4096
    assert shape_of("Mistral-7B-v0.1", sliding_window=None).max_position_embeddings == 32768
    off = {"sliding_window": 4096, "use_sliding_window": False}
    assert shape_of("Qwen2.5-14B", **off).max_position_embeddings == 131072


def test_windows_of_layers_are_read_with_their_rotary_embeddings() -> None:
    shape = shape_of("Olmo-3-1125-32B")
    assert shape.window_layers is not None
    assert shape.window_layers.window == 4096
    assert len(shape.window_layers.layers) == 48
    assert shape.attention_of(3) == (None, shape.rope)
    assert shape.attention_of(4).rope.scaling is None
    assert shape.rope_scaling.kind == "yarn"
    assert shape.max_position_embeddings == 65536


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Llama-3.1-8B", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("Llama-3.1-8B", {"attention_bias": 1}, "attention_bias is 1"),
        ("Llama-3.1-8B", {"mlp_bias": None}, "mlp_bias is None"),
        ("Granite-3.1-8B", {"logits_scaling": 0}, "logits_scaling is 0"),
        ("SmolLM3-3B", {"no_rope_layers": [1]}, "0 or 1 for each of 36 layers"),
        ("SmolLM3-3B", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("Olmo-3-1125-32B", {"rope_theta": 10000.0}, "reads 500000 for the layers with a window"),
        ("Olmo-3-1125-32B", {"sliding_window": None}, "sliding_window is None"),
        ("Olmo-3-1125-32B", {"layer_types": ["full_attention"]}, "for each of 64 layers"),
        ("Granite-3.1-8B", {"attention_multiplier": None}, "attention_multiplier is None"),
        ("Llama-3.1-8B", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("Llama-3.1-8B", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "dynamic"),
        ("Llama-3.1-8B", {"rope_scaling": {"rope_type": "llama3"}}, "factor .* is None"),
        ("Llama-3.1-8B", {"num_hidden_layers": "many"}, "num_hidden_layers is 'many'"),
        ("Qwen3-8B", {"attention_bias": True}, "attention_bias is True"),
        ("Qwen3-30B-A3B", {"mlp_only_layers": [3]}, r"mlp_only_layers is \[3\]"),
        ("Qwen3-30B-A3B", {"decoder_sparse_step": 2}, "decoder_sparse_step is 2"),
        ("Qwen3-30B-A3B", {"moe_intermediate_size": None}, "moe_intermediate_size is None"),
        ("Qwen3-8B", {"model_type": "gemma3"}, "model_type 'gemma3' is not supported"),
        ("Qwen3-8B", {"model_type": "exaone4"}, "nearest is qwen3; what is missing: norms after"),
        ("Qwen3-8B", {"model_type": "qwen_3"}, "nearest name is qwen3"),
    ],
)
def test_what_is_not_computed_exactly_is_refused(
    name: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        shape_of(name, **change)


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.5,
            "high_freq_factor": 6.0,
            "original_max_position_embeddings": 1000,
        },
    ],
    ids=["linear", "llama3"],
)
def test_stretched_frequencies_are_those_of_transformers(settings: dict[str, Any]) -> None:
    rope_utils = pytest.importorskip("transformers.modeling_rope_utils")
    from transformers import LlamaConfig

    shape = shape_of("Llama-3.1-8B", rope_scaling=settings)
    config: Any = LlamaConfig(
        hidden_size=4096,
        num_attention_heads=32,
        rope_parameters={**settings, "rope_theta": 500000.0},
    )
    expected, _ = rope_utils.ROPE_INIT_FUNCTIONS[settings["rope_type"]](config)
    found = inverse_frequencies(shape.rope, shape.head_dim)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
    assert not torch.allclose(found, 1.0 / 500000.0 ** (torch.arange(0, 128, 2) / 128), rtol=1e-3)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_model_saved_by_transformers_comes_back_bit_for_bit(
    model_type: str, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    folder = tiny.write_tiny_model(tmp_path / "hf", model_type, dtype="bfloat16")
    import_hf(folder, tmp_path / "megatron")
    export_hf(tmp_path / "megatron", tmp_path / "back")
    files = [tmp_path / folder / "model.safetensors" for folder in ("hf", "back")]
    assert files[0].read_bytes() == files[1].read_bytes()
    with safe_open(files[0], framework="pt") as opened:
        total = sum(opened.get_tensor(name).numel() for name in opened.keys())  # noqa: SIM118
    assert read_model_shape(folder).num_parameters == total
    assert verify(folder, tmp_path / "megatron").is_same_model


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"expert": 3, "data": 3}, "3 does not divide the model's 128 experts"),
        ({"tensor": 2, "expert": 2}, "parallel.sequence: false"),
        ({"tensor": 2, "sequence": True}, "parallel.expert: 1"),
    ],
)
def test_layouts_that_experts_do_not_fit(layout: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_layout(shape_of("Qwen3-30B-A3B"), ParallelConfig(**layout))
    check_layout(
        shape_of("Qwen3-30B-A3B"), ParallelConfig(tensor=2, sequence=True, expert=4, data=2)
    )


def test_what_is_not_supported_points_to_what_is() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert not UNSUPPORTED.keys() & ARCHITECTURES.keys()
    assert {found.model_type for found in UNSUPPORTED.values()} <= ARCHITECTURES.keys()
    assert UNSUPPORTED.keys() - CONFIG_MAPPING_NAMES.keys() <= {"internlm2"}
