"""The shape of a model, read from a Hugging Face config.json.

Everything that decides which weights exist and what they compute, in one small frozen object. The
trainer builds a megatron-core GPTModel from it, the conversion its table of tensors. No torch and
no transformers: a login node can read it.
"""

from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.files import sha256_of_json

SUPPORTED_MODEL_TYPES = ("llama",)


class ModelShape(BaseModel):
    """Sizes and switches of a decoder-only transformer with RMSNorm, RoPE and a gated MLP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: str
    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int
    """Number of key/value heads."""
    head_dim: int
    vocab_size: int
    """Rows of the embedding, without any padding."""
    max_position_embeddings: int
    norm_epsilon: float
    rope_theta: float
    tie_word_embeddings: bool

    @property
    def num_parameters(self) -> int:
        """Weights of the whole model, tied embeddings counted once."""
        attention = 2 * (self.num_attention_heads + self.num_query_groups) * self.head_dim
        layer = self.hidden_size * (attention + 3 * self.ffn_hidden_size + 2)
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size

    @property
    def sha256(self) -> str:
        """Hash that is equal for models whose weights can be exchanged."""
        return sha256_of_json(self.model_dump())


def read_model_shape(folder: Path) -> ModelShape:
    """Read `folder/config.json`.

    Raises:
        CheckpointError: The file is missing, broken, or describes a model that is not supported.
    """
    path = folder / "config.json"
    try:
        config = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: not found. Give a Hugging Face model folder (config.json, *.safetensors)."
        ) from None
    except orjson.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from None
    return shape_from_hf_config(config, source=str(path))


def shape_from_hf_config(config: dict[str, Any], *, source: str) -> ModelShape:
    """Translate a Hugging Face config into a `ModelShape`.

    Args:
        config: The parsed config.json.
        source: File name for messages.

    Raises:
        CheckpointError: A field is missing, or asks for something that is not supported.
    """
    model_type = config.get("model_type")
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise CheckpointError(
            f"{source}: model_type {model_type!r} is not supported. "
            f"Supported: {', '.join(SUPPORTED_MODEL_TYPES)}."
        )
    _refuse_unsupported(config, source)
    try:
        heads = config["num_attention_heads"]
        return ModelShape(
            model_type=model_type,
            num_layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            ffn_hidden_size=config["intermediate_size"],
            num_attention_heads=heads,
            num_query_groups=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab_size=config["vocab_size"],
            max_position_embeddings=config["max_position_embeddings"],
            norm_epsilon=config["rms_norm_eps"],
            rope_theta=_rope_parameters(config).get("rope_theta", 10000.0),
            # config.json may leave it out; transformers' default for this family is untied.
            tie_word_embeddings=config.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise CheckpointError(f"{source}: field {error} is missing.") from None


def _rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """Return RoPE settings: transformers 5 nests them, earlier versions have them at the top."""
    nested = config.get("rope_parameters")
    if isinstance(nested, dict):
        return nested
    scaling = config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta", 10000.0), **scaling}


def _refuse_unsupported(config: dict[str, Any], source: str) -> None:
    rope = _rope_parameters(config)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    wanted = {
        "hidden_act": (config.get("hidden_act", "silu"), "silu"),
        "attention_bias": (bool(config.get("attention_bias", False)), False),
        "mlp_bias": (bool(config.get("mlp_bias", False)), False),
        "rope_type": (rope_type, "default"),
    }
    for field, (found, supported) in wanted.items():
        if found != supported:
            raise CheckpointError(
                f"{source}: {field} is {found!r}; only {supported!r} is supported for this "
                "architecture so far."
            )
