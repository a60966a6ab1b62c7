"""config.json is read as transformers reads it, or refused: thousands of files, two generations."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_msm.errors import CheckpointError
from megatron_msm.models.architecture import HfConfig
from megatron_msm.models.config_fields import CHANGES_NOTHING, ONLY_THESE
from megatron_msm.models.families.registry import ARCHITECTURES
from megatron_msm.models.hf_config import read_hf_config, read_model_shape
from megatron_msm.models.layers.rope import inverse_frequencies
from tests.unit.models import transformers_readings

GOLDEN = Path(__file__).parent / "golden" / "transformers_4_57.json"
SIZES_COMPARED = (
    "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "key_size",
    "query_size", "vocab_size", "norm_epsilon", "tie_word_embeddings",
)  # fmt: skip
LLAMA = {"model_type": "llama", **transformers_readings.SIZES}
MOE = {"model_type": "qwen3_moe", **transformers_readings.SIZES}


def read(config: Any, folder: Path) -> HfConfig:
    (folder / "config.json").write_text(json.dumps(config))
    return read_hf_config(folder)


def frequencies(found: HfConfig) -> torch.Tensor:
    return inverse_frequencies(found.shape.rope, found.shape.head_dim)


def is_same_rope(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.get("inv_freq") == other.get("inv_freq")


@pytest.mark.filterwarnings("ignore")
def test_every_combination_is_read_as_transformers_reads_it_or_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", minversion="5")
    transformers.logging.set_verbosity_error()
    golden = json.loads(GOLDEN.read_text())
    cases = list(transformers_readings.cases())
    assert len(cases) == len(golden["cases"]), "renew the golden file, see transformers_readings.py"
    num_refused = num_remarks = 0
    for (name, config), number in zip(cases, golden["cases"], strict=True):
        four, five = golden["readings"][number], transformers_readings.reading(config)
        try:
            found = read(config, tmp_path)
        except CheckpointError as error:
            num_refused += 1
            assert "error" in five or any(reason in str(error) for reason in REASONS), (name, error)  # noqa: PT017
            continue
        assert "error" not in five, f"{name}: transformers does not load it"
        expected = torch.tensor(five["inv_freq"])
        torch.testing.assert_close(frequencies(found), expected, rtol=2e-6, atol=0.0, msg=name)
        scaling = found.shape.rope_scaling
        factor = 1.0 if scaling is None else scaling.attention_factor
        assert factor == pytest.approx(five["attention_scaling"], rel=1e-12), name
        for size in SIZES_COMPARED:
            assert getattr(found.shape, size) == five[size], (name, size)
        longest = min(five["max_position_embeddings"], five["window"] or 2**31)
        assert found.shape.max_position_embeddings == longest, name
        assert bool(found.remarks) == (not is_same_rope(four, five)), (name, found.remarks)
        num_remarks += bool(found.remarks)
        if "error" not in four and not found.remarks:
            assert four | {"inv_freq": []} == five | {"inv_freq": []}, name
    assert 100 < num_remarks < len(cases) - num_refused


# Where transformers reads something without an error: two statements differ, or a window is spoken
# of that the class does not have.
REASONS = (
    "from elsewhere in the file",
    "it is not read with rope_type",
    "sliding_window is 16; only null is supported",
    "use_sliding_window is ",
    "layer_types is ",
    "max_window_layers is ",
    "has to divide num_attention_heads",  # it loads and cannot compute
    "there are 4 experts",
    "partial_rotary_factor is None",  # transformers 4 does not load it
)


def test_theta_at_the_top_goes_with_rope_parameters_without_one(tmp_path: Path) -> None:
    rope = {"rope_parameters": {"rope_type": "default"}, "rope_theta": 500000.0}
    assert read(LLAMA | rope, tmp_path).shape.rope_theta == 500000.0


def test_a_window_that_is_not_named_is_the_default_of_the_class(tmp_path: Path) -> None:
    config = {**LLAMA, "model_type": "mistral", "max_position_embeddings": 32768}
    assert read(config, tmp_path).shape.max_position_embeddings == 4096
    config["sliding_window"] = None
    assert read(config, tmp_path).shape.max_position_embeddings == 32768


def test_what_transformers_4_would_lose_is_said(tmp_path: Path) -> None:
    new = read(LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, tmp_path)
    assert new.remarks == (
        "rotary embeddings: theta 500000, not stretched, as transformers 5 reads it; "
        "transformers 4 reads theta 10000, not stretched",
    )
    assert read(LLAMA | {"rope_theta": 5e5}, tmp_path).remarks == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_causal": False}, "is_causal is False; this field is not known"),
        ({"quantization_config": {"load_in_4bit": True}}, "before quantisation"),
        ({"transformers_weights": "x.safetensors"}, "transformers_weights is 'x.safetensors'"),
        ({"auto_map": {"AutoModelForCausalLM": "m.M"}}, "code in the folder"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "only .'LlamaForCausalLM'. is"),
        ({"sliding_window": 64}, "sliding_window is 64; only null"),
        ({"per_layer_config": {"0": {}}}, "per_layer_config is"),
        ({"dtype": "float8_e4m3fn"}, "dtype is 'float8_e4m3fn'"),
        ({"dtype": "float16", "torch_dtype": "bfloat16"}, "torch_dtype is 'bfloat16'"),
        ({"sliding_window": "4096"}, "sliding_window is '4096'"),
        ({"rope_theta": 0}, "rope_theta is 0; a positive number"),
        ({"rope_parameters": "x"}, "rope_parameters is 'x'; an object"),
        ({"rope_scaling": {"type": "linear", "factor": None}}, "factor .* is None"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor .* is 0"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope_type is 'dynamic'"),
        ({"rope_scaling": {"type": "yarn", "factor": 0.5}}, "factor .* is 0.5"),
        ({"rope_scaling": {"type": "yarn", "factor": 4, "truncate": None}}, "truncate .* is None"),
        ({"rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 0}}, "beta_fast .* is 0"),
        ({"rope_scaling": {"type": "yarn", "factor": 4, "low_freq_factor": 1}}, "is not read with"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}, "rope_theta": 1}, "rope_theta is 1;"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "x": 1}}, "rope_scaling.x is 1"),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_theta": 6.0}, "reads rope_theta 5.0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"vocab_size": 2**40}, "vocab_size is 1099511627776"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3; it has to divide"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_is_refused_by_name_and_value(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read(LLAMA | change, tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["[]", "1", '"llama"', "null", "{}", '{"model_type": [1]}', "{"]
)
def test_a_file_that_is_no_config_gets_one_message(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        read_model_shape(tmp_path)


FIELDS = sorted(
    {
        *(name for names in CHANGES_NOTHING.values() for name in names),
        *ONLY_THESE,
        *transformers_readings.ROPE,
        *transformers_readings.WINDOWS,
        *transformers_readings.SINGLE,
        *(name for architecture in ARCHITECTURES.values() for name in architecture.only),
        "model_type",
        "architectures",
        "unheard_of",
    }
)
ROPE_FIELDS = (
    *("rope_theta", "rope_type", "type", "factor", "low_freq_factor", "high_freq_factor"),
    *("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
)
ANY_NUMBER = st.integers() | st.floats() | st.integers(min_value=10**300, max_value=10**400)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | ANY_NUMBER | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(ROPE_FIELDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=6,
)
ANY_ROPE = st.dictionaries(
    st.sampled_from((*ROPE_FIELDS, "original_max_position_embeddings", "partial_rotary_factor")),
    ANY_JSON | st.sampled_from(["default", "linear", "llama3", "yarn", 8.0, 1, 32]),
)


@settings(max_examples=1000, deadline=None)
@given(
    st.sampled_from(sorted(ARCHITECTURES)),
    st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, max_size=4),
    st.dictionaries(st.sampled_from(["rope_scaling", "rope_parameters"]), ANY_ROPE, max_size=2),
)
def test_any_json_in_any_field_is_read_or_refused_in_one_message(
    tmp_path_factory: pytest.TempPathFactory,
    model_type: str,
    changes: dict[str, Any],
    rope: dict[str, Any],
) -> None:
    folder = tmp_path_factory.getbasetemp()
    config = {**MOE, "model_type": model_type, **rope, **changes}
    try:
        found = read(config, folder)
    except CheckpointError as error:
        num_lines = len(str(error).splitlines())
    else:
        num_lines = 1
        assert frequencies(found).isfinite().all()
    assert num_lines == 1


def test_every_remaining_field_of_the_published_classes_is_known(tmp_path: Path) -> None:
    """What transformers writes of its own accord is read, whatever its release writes."""
    transformers = pytest.importorskip("transformers")
    for model_type, name in transformers_readings.CLASSES.items():
        config = getattr(transformers, f"{name}Config")(num_hidden_layers=2).to_dict()
        assert read(config, tmp_path).shape.model_type == model_type


def test_the_packaged_models_config_is_taken(smollm2_folder: Path) -> None:
    """As transformers writes it from a GGUF file, with fields that other exports do not have."""
    assert read_model_shape(smollm2_folder).num_layers == 30
