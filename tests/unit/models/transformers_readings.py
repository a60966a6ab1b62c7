"""What the installed transformers reads in many config.json files: an oracle, and a program.

Only transformers and torch are imported, so that any version of it can be asked:

    PYTHON_WITH_TRANSFORMERS_4 tests/unit/models/transformers_readings.py > \
        tests/unit/models/golden/transformers_4_57.json

renews the readings of transformers 4.57 after a change of `cases`.
"""

import copy
import importlib
import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import torch

ABSENT = object()
CLASSES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3Moe",
    "olmo2": "Olmo2",
    "granite": "Granite",
    "mixtral": "Mixtral",
    "smollm3": "SmolLM3",
}
SIZES: dict[str, Any] = {
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_NO_ORIGINAL = {name: value for name, value in _LLAMA3.items() if not name.startswith("orig")}
_THETA = {"rope_theta": 500000.0}
_LINEAR = {"rope_type": "linear", "factor": 4.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_YARN_ALONE = {"rope_type": "yarn", "factor": 4.0}
ROPE: dict[str, list[Any]] = {
    "rope_parameters": [
        ABSENT, None, {}, _THETA, {"rope_type": "default"}, {"rope_type": "default", **_THETA},
        _LINEAR, _LINEAR | _THETA, _LLAMA3, _LLAMA3 | _THETA, _NO_ORIGINAL | _THETA,
        {"type": "linear", "factor": 4.0},
        _LINEAR | {"partial_rotary_factor": None}, {"rope_type": "default", "rope_theta": 7.0},
    ],
    "rope_scaling": [
        ABSENT, None, {"type": "linear", "factor": 4.0}, _LINEAR | _THETA, _LLAMA3, _NO_ORIGINAL,
        _THETA, {"rope_type": "linear", "factor": 3.0},
    ],
    "rope_theta": [ABSENT, None, 500000.0],
    "original_max_position_embeddings": [ABSENT, 32, 48],
}  # fmt: skip
WINDOWS: dict[str, list[Any]] = {
    "sliding_window": [ABSENT, None, 16],
    "use_sliding_window": [ABSENT, False, True],
    "max_window_layers": [ABSENT, 0, 2, 3],
    "layer_types": [
        ABSENT, None, ["full_attention"] * 3, ["full_attention", *["sliding_attention"] * 2],
    ],
}  # fmt: skip
SINGLE: dict[str, list[Any]] = {
    **{name: [ABSENT] for name in (*SIZES, *_EXPERTS)},
    "num_key_value_heads": [ABSENT, None, 4],
    "head_dim": [None, 24],
    "dtype": ["bfloat16"],
    "torch_dtype": ["float16"],
    "partial_rotary_factor": [None, 1.0],
    "hidden_act": ["silu"],
}


YARN: dict[str, list[Any]] = {
    "rope_parameters": [ABSENT, _YARN | _THETA, _YARN_ALONE],
    "rope_scaling": [
        ABSENT, _YARN, _YARN_ALONE, {"type": "yarn", "factor": 4.0}, _YARN | {"factor": 1.0},
        _YARN | _THETA, _YARN | {"attention_factor": 1.3}, _YARN | {"truncate": False},
        _YARN | {"beta_fast": 16, "beta_slow": 2}, _YARN | {"mscale": 0.7, "mscale_all_dim": 1.0},
        _YARN | {"mscale": 0.7}, _YARN | {"beta_fast": None, "attention_factor": None},
    ],
    "rope_theta": [ABSENT, 500000.0],
    "original_max_position_embeddings": [ABSENT, 48],
}  # fmt: skip


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and content of every config.json."""
    for model_type in CLASSES:
        base = {"model_type": model_type, **SIZES}
        if model_type == "qwen3_moe":
            base |= _EXPERTS
        if model_type == "mixtral":
            base |= {"num_local_experts": 4, "num_experts_per_tok": 2}
        for table in (ROPE, YARN, WINDOWS):
            for values in itertools.product(*table.values()):
                yield from _case(base, dict(zip(table, values, strict=True)))
        single = SINGLE | ({"num_local_experts": [4]} if model_type == "qwen3_moe" else {})
        for name, options in single.items():
            for value in options:
                yield from _case(base, {name: value})


def _case(base: dict[str, Any], change: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    config = {**base, **change}
    config = {name: value for name, value in config.items() if value is not ABSENT}
    shown = {name: "-" if value is ABSENT else value for name, value in change.items()}
    yield f"{base['model_type']} {json.dumps(shown)}", copy.deepcopy(config)


def reading(config: dict[str, Any]) -> dict[str, Any]:
    """Return what the installed transformers makes of a config: numbers, or the error's type."""
    model_type = config["model_type"]
    name = CLASSES[model_type]
    classes = importlib.import_module(
        f"transformers.models.{model_type}.configuration_{model_type}"
    )
    models = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    try:
        found = getattr(classes, f"{name}Config").from_dict(copy.deepcopy(config))
        rotary = getattr(models, f"{name}RotaryEmbedding")(config=found)
        with torch.device("meta"):
            attention = getattr(models, f"{name}Attention")(found, 0)
    except Exception as error:  # every way in which it does not load
        return {"error": type(error).__name__}
    return {
        "inv_freq": [float(f"{value:.9g}") for value in rotary.inv_freq.tolist()],
        "attention_scaling": rotary.attention_scaling,
        "window": _window(found, model_type),
        "num_layers": found.num_hidden_layers,
        "hidden_size": found.hidden_size,
        "ffn_hidden_size": found.intermediate_size,
        "num_attention_heads": found.num_attention_heads,
        "key_size": attention.k_proj.weight.shape[0],
        "query_size": attention.q_proj.weight.shape[0],
        "vocab_size": found.vocab_size,
        "max_position_embeddings": found.max_position_embeddings,
        "norm_epsilon": found.rms_norm_eps,
        "tie_word_embeddings": found.tie_word_embeddings,
    }


def _window(config: Any, model_type: str) -> int | None:
    """Return the window that the model's forward would make a mask of."""
    window: int | None = getattr(config, "sliding_window", None)
    if model_type in ("qwen2", "qwen3") and "sliding_attention" not in config.layer_types:
        return None
    return window


def main() -> None:
    """Print every distinct reading once, and for each case which it is."""
    import transformers

    transformers.logging.set_verbosity_error()
    distinct: dict[str, int] = {}
    numbers = []
    for _, config in cases():
        text = json.dumps(reading(config))
        numbers.append(distinct.setdefault(text, len(distinct)))
    result = {
        "transformers": transformers.__version__,
        "readings": [json.loads(text) for text in distinct],
        "cases": numbers,
    }
    json.dump(result, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    main()
