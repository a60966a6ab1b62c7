"""What an architecture is: how its config.json is read, and its table of tensors. No torch.

An architecture is one file that fills in an `Architecture`; docs/architectures.md walks through
one. The fields that all have in common are read here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from megatron_msm.errors import CheckpointError
from megatron_msm.models.shape import ModelShape, RopeScaling
from megatron_msm.models.tensor_table import ModelTable

Config = Mapping[str, Any]

_ROPE_FIELDS = {
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}


def _no_more(config: Config) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Architecture:
    """One Hugging Face `model_type`."""

    table: ModelTable
    must_be: Mapping[str, Any] = field(default_factory=dict)
    """Fields of config.json that may be absent, and the only value supported when they are not."""
    shape: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `ModelShape` that every model of this type has."""
    more_shape: Callable[[Config], Mapping[str, Any]] = _no_more
    """Further fields of `ModelShape`, read from config.json; a KeyError names a missing field."""

    def read_shape(self, config: Config, source: str) -> ModelShape:
        """Translate config.json.

        Args:
            config: Its content.
            source: File name for messages.

        Raises:
            CheckpointError: A field is missing or has a value that is not supported.
        """
        self._refuse_unsupported(config, source)
        rope = _rope_parameters(config)
        try:
            fields = {
                **_common_fields(config),
                "rope_theta": rope.get("rope_theta") or 10000.0,
                "rope_scaling": _rope_scaling(rope, config, source),
                **self.shape,
                **self.more_shape(config),
            }
        except KeyError as error:
            raise CheckpointError(f"{source}: field {error} is missing.") from None
        try:
            return ModelShape.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise CheckpointError(
                f"{source}: {'.'.join(map(str, first['loc']))} cannot be {first['input']!r}: "
                f"{first['msg']}."
            ) from None

    def _refuse_unsupported(self, config: Config, source: str) -> None:
        wanted = {"hidden_act": "silu", "partial_rotary_factor": 1.0, **self.must_be}
        for name, supported in wanted.items():
            found = config.get(name)
            if found is not None and found != supported:
                raise CheckpointError(
                    f"{source}: {name} is {found!r}; only {supported!r} is supported for "
                    f"model_type {config['model_type']!r}."
                )


def _common_fields(config: Config) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    return {
        "model_type": config["model_type"],
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "num_attention_heads": heads,
        "num_query_groups": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "vocab_size": config["vocab_size"],
        "max_position_embeddings": _exact_positions(config),
        "norm_epsilon": config["rms_norm_eps"],
        # config.json may leave it out; transformers' default for these families is untied.
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
    }


def _exact_positions(config: Config) -> int:
    """Return the longest document for which full attention is what the model computes.

    A sliding window of W positions changes nothing in a document of W tokens. Longer ones are not
    supported, so the window is the model's length here.
    """
    positions: int = config["max_position_embeddings"]
    window: int | None = config.get("sliding_window")
    # Qwen's configs name a window and switch it off; Mistral's have no switch.
    if window is None or not config.get("use_sliding_window", True):
        return positions
    return min(positions, window)


def _rope_parameters(config: Config) -> Config:
    """Return RoPE settings: transformers 5 nests them, earlier versions have them at the top."""
    nested = config.get("rope_parameters")
    if isinstance(nested, dict):
        return nested
    return {"rope_theta": config.get("rope_theta"), **(config.get("rope_scaling") or {})}


def _rope_scaling(rope: Config, config: Config, source: str) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default" and rope.get("partial_rotary_factor", 1.0) == 1.0:
        return None
    if kind not in _ROPE_FIELDS or rope.get("partial_rotary_factor", 1.0) != 1.0:
        supported = ", ".join(("default", *_ROPE_FIELDS))
        raise CheckpointError(
            f"{source}: rope parameters {dict(rope)} are not supported. Supported: rope_type "
            f"{supported}, on whole heads."
        )
    # transformers takes the model's own length when the original one is not named.
    known = {"original_max_position_embeddings": config["max_position_embeddings"], **rope}
    return RopeScaling(kind=kind, **{name: known[name] for name in _ROPE_FIELDS[kind]})
