"""Gemma 3's config.json is read as transformers reads it; its text model is taken out of gemma3."""

import copy
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_msm.errors import CheckpointError
from megatron_msm.models.hf_config import read_hf_config, read_model_shape
from megatron_msm.models.layers.rope import inverse_frequencies

transformers: Any = pytest.importorskip("transformers", minversion="5")

# google/gemma-3-1b-it, as published.
GEMMA_1B: dict[str, Any] = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "initializer_range": 0.02,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "use_cache": True,
    "vocab_size": 262144,
}
ABSENT = object()
_LINEAR = {"rope_type": "linear", "factor": 8.0}
_FULL, _WINDOW = "full_attention", "sliding_attention"
OPTIONS: dict[str, list[Any]] = {
    "rope_parameters": [
        ABSENT,
        None,
        {_FULL: {"rope_type": "default"}, _WINDOW: {"rope_type": "default"}},
        {_FULL: {**_LINEAR, "rope_theta": 5e5}, _WINDOW: {"rope_theta": 7.0}},
        {_FULL: _LINEAR},
        {_WINDOW: {"rope_type": "default", "rope_theta": 7.0}},
        {"rope_type": "default", "rope_theta": 7.0},
    ],
    "rope_scaling": [ABSENT, None, _LINEAR, {"type": "linear", "factor": 8.0}],
    "rope_theta": [ABSENT, 500000.0],
    "rope_local_base_freq": [ABSENT, 500.0],
    "layer_types": [ABSENT, [_FULL, _WINDOW, _WINDOW], [_FULL] * 3],
    "sliding_window_pattern": [ABSENT, 2],
}
SIZES = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "head_dim": 24}


def read(config: dict[str, Any], folder: Path) -> Any:
    (folder / "config.json").write_text(json.dumps(config))
    return read_hf_config(folder)


@pytest.mark.filterwarnings("ignore")
def test_every_combination_is_read_as_transformers_reads_it_or_refused(tmp_path: Path) -> None:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

    transformers.logging.set_verbosity_error()
    num_read = num_remarks = 0
    for values in itertools.product(*OPTIONS.values()):
        change = {n: v for n, v in zip(OPTIONS, values, strict=True) if v is not ABSENT}
        config = {"model_type": "gemma3_text", **SIZES, **change}
        try:
            found = read(config, tmp_path)
        except CheckpointError:
            continue
        theirs = transformers.Gemma3TextConfig.from_dict(copy.deepcopy(config))
        rotary = Gemma3RotaryEmbedding(theirs)
        for layer, kind in enumerate(theirs.layer_types):
            attention = found.shape.attention_of(layer)
            assert attention.window == (theirs.sliding_window if kind == _WINDOW else None), config
            wanted = getattr(rotary, f"{kind}_inv_freq")
            frequencies = inverse_frequencies(attention.rope, 24)
            torch.testing.assert_close(frequencies, wanted, rtol=2e-6, atol=0.0)
        # What transformers 4 knows: two thetas and `rope_scaling`.
        four = (change.get("rope_theta", 1e6), change.get("rope_scaling") or None)
        scaling = found.shape.rope_scaling
        ours = (found.shape.rope_theta, None if scaling is None else _LINEAR)
        local = theirs.rope_parameters[_WINDOW]["rope_theta"]
        is_same = four == ours and local == change.get("rope_local_base_freq", 1e4)
        assert bool(found.remarks) is not is_same, (config, found.remarks)
        num_read += 1
        num_remarks += bool(found.remarks)
    assert num_read > 300
    assert num_read > num_remarks > 100


def test_the_published_file_and_what_transformers_writes_are_read(tmp_path: Path) -> None:
    shape = read(GEMMA_1B, tmp_path).shape
    assert shape.num_parameters == 999_885_952
    assert shape.window_layers.window == 512
    assert [layer for layer in range(26) if layer not in shape.window_layers.layers] == [
        *(5, 11, 17, 23)
    ]
    written = transformers.Gemma3TextConfig.from_dict(copy.deepcopy(GEMMA_1B)).to_dict()
    written["architectures"] = ["Gemma3ForCausalLM"]
    assert read(written, tmp_path).shape == shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ({"hidden_activation": "gelu"}, "hidden_activation is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ({"sliding_window": None}, "sliding_window is None"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        ({"layer_types": ["full_attention"]}, "for each of 26 layers"),
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, "transformers needs rope_type"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "full_attention layers: factor"),
        ({"rope_local_base_freq": 0}, "sliding_attention layers: rope_theta is 0"),
        ({"rope_parameters": {"rope_type": "default"}}, "sections full_attention and"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_is_refused_by_name_and_value(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(GEMMA_1B | change, tmp_path)


def test_the_text_model_inside_gemma3_is_saved_as_the_guide_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 300}
    vision = {
        **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "image_size": 28, "patch_size": 14},
    }
    tokens = {"image_token_index": 299, "boi_token_index": 297, "eoi_token_index": 298}
    config = transformers.Gemma3Config(
        text_config={**sizes, "rope_scaling": _LINEAR}, vision_config=vision, **tokens
    )
    whole = transformers.Gemma3ForConditionalGeneration(config)
    whole.save_pretrained(tmp_path / "gemma-3-12b-pt")
    with pytest.raises(CheckpointError, match="text model can be saved by itself"):
        read_model_shape(tmp_path / "gemma-3-12b-pt")
    guide = Path(__file__).parents[4] / "docs" / "architectures.md"
    (program,) = re.findall(r"```python\n(.*?)```", guide.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", _NoTokenizer)
    exec(compile(program, str(guide), "exec"), {})
    shape = read_model_shape(tmp_path / "gemma-3-12b-text")
    assert shape.rope_scaling is not None
    text = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "gemma-3-12b-text")
    prompt = torch.arange(20)[None]
    assert torch.equal(text(prompt).logits, whole(prompt).logits)


class _NoTokenizer:
    """A tokenizer's files are copied by the tokenizer; this one has none."""

    def __init__(self, folder: str) -> None:
        assert folder == "gemma-3-12b-pt"

    def save_pretrained(self, folder: str) -> None:
        assert folder == "gemma-3-12b-text"
