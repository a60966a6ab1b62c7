"""What the installed transformers reads in a folder, and what it computes with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from megatron_msm.convert.forward.model_slice import ModelSlice
from megatron_msm.convert.huggingface.causal_lm import check_loaded, transformers_for
from megatron_msm.models.shape import ModelShape

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def read_config(folder: Path) -> "PretrainedConfig":
    """Return the configuration object of transformers.

    Raises:
        CheckpointError: transformers does not read it.
        MissingExtraError: transformers is not installed.
    """
    with transformers_for(folder) as transformers:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)


def differences_in_reading(folder: Path, shape: ModelShape) -> list[str]:
    """Compare what the installed transformers reads in config.json with what is trained.

    Returns:
        A sentence for each field that is read differently, with both values.

    Raises:
        CheckpointError: transformers does not read it.
        MissingExtraError: transformers is not installed.
    """
    with transformers_for(folder) as transformers:
        version = transformers.__version__
    found = _facts(read_config(folder), has_window_layers=shape.window_layers is not None)
    return [
        f"transformers {version} reads {name} {found.get(name)!r}, and it is {value!r} here"
        for name, value in _facts_of_shape(shape).items()
        if found.get(name) != value
    ]


def is_generation_5() -> bool:
    """Return whether the installed transformers is one whose reading is taken over here."""
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5


def _stretch_fields(kind: str) -> tuple[str, ...]:
    """Return the settings of a stretched rotary embedding that have to agree."""
    if kind == "llama3":
        original = "original_max_position_embeddings"
        return "factor", "low_freq_factor", "high_freq_factor", original
    if kind == "yarn":
        return "factor", "original_max_position_embeddings"
    return () if kind == "default" else ("factor",)


def _ropes(config: "PretrainedConfig") -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Return what is said of the rotary embeddings of layers without a window and of those with.

    Of transformers 4 or 5; the same twice where a class does not tell them apart.
    """
    if is_generation_5():
        rope = config.rope_parameters
        is_nested = "full_attention" in rope
        return (rope["full_attention"], rope["sliding_attention"]) if is_nested else (rope, rope)
    rope = {**(getattr(config, "rope_scaling", None) or {}), "rope_theta": config.rope_theta}
    local = getattr(config, "rope_local_base_freq", None)
    return rope, rope if local is None else {"rope_theta": local}


def _facts(config: "PretrainedConfig", *, has_window_layers: bool) -> dict[str, object]:
    """Return what a configuration object says, of transformers 4 or 5."""
    rope, rope_of_windows = _ropes(config)
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types is not None and "sliding_attention" not in types:
        window = None
    bound = None if has_window_layers else window
    facts = {
        "num_hidden_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "num_attention_heads": heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": head_dim,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "rope_theta": rope["rope_theta"],
        "rope_type": kind,
        **{name: rope.get(name) for name in _stretch_fields(kind)},
        "embedding_multiplier": getattr(config, "embedding_multiplier", 1.0),
        "residual_multiplier": getattr(config, "residual_multiplier", 1.0),
        "logits_scaling": getattr(config, "logits_scaling", 1.0),
        "longest exact document": min(config.max_position_embeddings, bound or 2**31),
    }
    if has_window_layers:
        layers = enumerate(types or ())
        facts |= {
            "sliding_window": window,
            "layers with a window": [n for n, found in layers if found == "sliding_attention"],
            "rope_theta of layers with a window": rope_of_windows["rope_theta"],
        }
    return facts


def _facts_of_shape(shape: ModelShape) -> dict[str, object]:
    scaling, windows = shape.rope_scaling, shape.window_layers
    kind = "default" if scaling is None else scaling.kind
    facts: dict[str, object] = {
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_query_groups,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "rms_norm_eps": shape.norm_epsilon,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "rope_theta": shape.rope_theta,
        "rope_type": kind,
        **{name: getattr(scaling, name) for name in _stretch_fields(kind)},
        "embedding_multiplier": shape.embedding_multiplier,
        "residual_multiplier": shape.residual_multiplier,
        "logits_scaling": shape.logits_scaling,
        "longest exact document": shape.max_position_embeddings,
    }
    if windows is not None:
        facts |= {
            "sliding_window": windows.window,
            "layers with a window": list(windows.layers),
            "rope_theta of layers with a window": windows.rope.theta,
        }
    return facts


@torch.no_grad()
def logits_of_folder(
    folder: Path, part: ModelSlice, prompts: list[list[int]]
) -> list[torch.Tensor]:
    """Load a folder as anyone would, in float32, and compute the logits of prompts.

    Args:
        folder: With config.json and weights.
        part: All layers, and the words whose logits are returned.
        prompts: Numbers of words in `part.tokens`.

    Returns:
        One (tokens, words of the part) a prompt.

    Raises:
        CheckpointError: transformers cannot load it.
        MissingExtraError: transformers is not installed.
    """
    with transformers_for(folder) as transformers:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    check_loaded(folder, loading)
    words = torch.tensor(part.tokens)
    return [model(words[torch.tensor([prompt])]).logits[0][:, words] for prompt in prompts]


@torch.no_grad()
def logits_of_part(
    folder: Path, part: ModelSlice, tensors: Mapping[str, torch.Tensor], prompts: list[list[int]]
) -> list[torch.Tensor]:
    """Compute the logits of prompts by a part of the model, in float32.

    Args:
        folder: Whose config.json is taken, as transformers reads it.
        part: Which layers and words.
        tensors: The part's weights, under Hugging Face's names.
        prompts: Numbers of words in `part.tokens`.

    Returns:
        One (tokens, words of the part) a prompt.

    Raises:
        CheckpointError: transformers cannot make the model.
        MissingExtraError: transformers is not installed.
    """
    config = read_config(folder)
    for name in ("layer_types", "no_rope_layers"):
        of_layers = getattr(config, name, None)
        if of_layers is not None:
            setattr(config, name, [of_layers[layer] for layer in part.layers])
    config.num_hidden_layers, config.vocab_size = len(part.layers), len(part.tokens)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    with transformers_for(folder) as transformers:
        model_class = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        model, loading = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=torch.float32,
            output_loading_info=True,
        )
    check_loaded(folder, loading)
    return [model.eval()(torch.tensor([prompt])).logits[0] for prompt in prompts]
