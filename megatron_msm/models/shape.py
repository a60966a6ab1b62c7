"""The shape of a model: what decides which weights exist and what they compute. No torch.

The trainer builds a megatron-core GPTModel from it, the conversion its table of tensors.
"""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from megatron_msm.formats.files import sha256_of_json


class RopeScaling(BaseModel):
    """How the frequencies of rotary embeddings were stretched for longer sequences."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    low_freq_factor: float = 1.0
    """llama3: wavelengths above `original_max_position_embeddings` / this are stretched fully."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below `original_max_position_embeddings` / this stay."""
    original_max_position_embeddings: int = 8192
    """llama3, yarn: positions of the model before it was stretched."""
    beta_fast: float = 32.0
    """yarn: wavelengths that turn this often in the original length stay."""
    beta_slow: float = 1.0
    """yarn: wavelengths that turn this often are stretched fully."""
    truncate: bool = True
    """yarn: the two bounds are rounded to whole frequencies."""
    attention_factor: float = 1.0
    """yarn: queries and keys are multiplied by this when they are rotated."""


class RopeShape(BaseModel):
    """Rotary embeddings: their base, and how their frequencies were stretched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    theta: float
    scaling: RopeScaling | None = None


class WindowLayers(BaseModel):
    """Layers in which a token sees a window of positions, beside those in which it sees all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int
    """Positions that a token sees, itself included."""
    layers: tuple[int, ...]
    """Which layers, counted from 0; the others see all positions."""
    rope: RopeShape
    """What these layers have; the others have the model's."""

    def of_part(self, layers: tuple[int, ...]) -> "WindowLayers":
        """Return the same for a model that is made of some of the layers, in that order."""
        mine = tuple(number for number, layer in enumerate(layers) if layer in self.layers)
        return self.model_copy(update={"layers": mine})


class LayerAttention(NamedTuple):
    """What the attention of one layer has of its own."""

    window: int | None
    """Positions that a token sees, itself included; None for all before it."""
    rope: RopeShape | None
    """None where queries and keys are not rotated."""


class ExpertShape(BaseModel):
    """The mixture of experts that takes the place of the MLP in every layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_experts: int
    experts_per_token: int
    ffn_hidden_size: int
    """Hidden size of one expert."""
    normalize_weights: bool
    """Whether the weights of a token's chosen experts add up to one."""


class ModelShape(BaseModel):
    """Sizes and switches of a decoder-only transformer with RMSNorm, RoPE and a gated MLP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: str
    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    """Hidden size of the dense MLP; without meaning when there are experts."""
    num_attention_heads: int
    num_query_groups: int
    """Number of key/value heads."""
    head_dim: int
    vocab_size: int
    """Rows of the embedding, without any padding."""
    max_position_embeddings: int
    """Longest document that is computed exactly; a sliding window ends it earlier."""
    norm_epsilon: float
    rope_theta: float
    tie_word_embeddings: bool
    rope_scaling: RopeScaling | None = None
    qkv_bias: bool = False
    """Query, key and value projections have a bias."""
    attention_output_bias: bool = False
    """The projection of attention's output has a bias."""
    mlp_bias: bool = False
    """All projections of the MLP have a bias."""
    qk_norm: bool = False
    """Queries and keys are normalised in each head before they are rotated."""
    qk_norm_over_heads: bool = False
    """Queries and keys are normalised over all heads at once, with a weight for each head."""
    norms_before: bool = True
    """Attention and MLP have a norm of their inputs."""
    norms_after: bool = False
    """Attention and MLP have a norm of their outputs, before these are added to the residual."""
    embedding_multiplier: float = 1.0
    """Embeddings are multiplied by this."""
    score_scale: float | None = None
    """What attention multiplies q k by; None for 1 / sqrt(head_dim)."""
    residual_multiplier: float = 1.0
    """Outputs of attention and MLP are multiplied by this, then added to the residual."""
    logits_scaling: float = 1.0
    """Logits are divided by this."""
    scales_embeddings: bool = False
    """Embeddings are multiplied by sqrt(hidden_size), which is rounded to their dtype first."""
    norms_add_one: bool = False
    """Norms multiply by one more than their weight."""
    activation: Literal["silu", "gelu_tanh"] = "silu"
    """What the MLP's gate goes through; `gelu_tanh` is GELU by its approximation with tanh."""
    experts: ExpertShape | None = None
    """None for a dense model."""
    window_layers: WindowLayers | None = None
    """None when every layer sees all positions."""
    no_rope_layers: tuple[int, ...] = ()
    """Layers, counted from 0, whose queries and keys are not rotated."""

    @property
    def rope(self) -> RopeShape:
        """Rotary embeddings of the layers that see all positions."""
        return RopeShape(theta=self.rope_theta, scaling=self.rope_scaling)

    @property
    def ropes(self) -> tuple[RopeShape, ...]:
        """The different rotary embeddings of all layers, the model's first."""
        own = () if self.window_layers is None else (self.window_layers.rope,)
        return tuple(dict.fromkeys((self.rope, *own)))

    def attention_of(self, layer: int) -> LayerAttention:
        """Return what a layer's attention has of its own; layers are counted from 0."""
        windows, window, rope = self.window_layers, None, self.rope
        if windows is not None and layer in windows.layers:
            window, rope = windows.window, windows.rope
        return LayerAttention(window, None if layer in self.no_rope_layers else rope)

    @property
    def has_layers_of_kinds(self) -> bool:
        """Whether the attention of some layers differs from that of others."""
        return self.window_layers is not None or bool(self.no_rope_layers)

    def of_part(self, layers: tuple[int, ...], vocab_size: int) -> "ModelShape":
        """Return the shape of a model that is made of some of the layers, in that order."""
        windows = None if self.window_layers is None else self.window_layers.of_part(layers)
        unrotated = tuple(n for n, layer in enumerate(layers) if layer in self.no_rope_layers)
        sizes = {"num_layers": len(layers), "vocab_size": vocab_size}
        kinds = {"window_layers": windows, "no_rope_layers": unrotated}
        return self.model_copy(update={**sizes, **kinds})

    @property
    def query_size(self) -> int:
        """Width of all queries."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """Width of all keys, and of all values."""
        return self.num_query_groups * self.head_dim

    @property
    def active_ffn_hidden_size(self) -> int:
        """MLP columns that one token passes through."""
        if self.experts is None:
            return self.ffn_hidden_size
        return self.experts.experts_per_token * self.experts.ffn_hidden_size

    @property
    def hidden_norms_of_layer(self) -> int:
        """Norms of the hidden size in a layer."""
        return 2 * self.norms_before + 2 * self.norms_after

    @property
    def num_parameters(self) -> int:
        """Weights of the whole model, tied embeddings counted once."""
        layer = 2 * self.hidden_size * (self.query_size + self.key_size) + self._mlp_parameters
        layer += self.hidden_norms_of_layer * self.hidden_size
        if self.qkv_bias:
            layer += self.query_size + 2 * self.key_size
        if self.attention_output_bias:
            layer += self.hidden_size
        if self.mlp_bias:
            layer += 2 * self.ffn_hidden_size + self.hidden_size
        if self.qk_norm:
            layer += 2 * self.head_dim
        if self.qk_norm_over_heads:
            layer += self.query_size + self.key_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size

    @property
    def _mlp_parameters(self) -> int:
        if self.experts is None:
            return 3 * self.hidden_size * self.ffn_hidden_size
        router_and_experts = 1 + 3 * self.experts.ffn_hidden_size
        return self.experts.num_experts * self.hidden_size * router_and_experts

    @property
    def sha256(self) -> str:
        """Hash that is equal for models whose weights can be exchanged."""
        return sha256_of_json(self.model_dump(exclude_defaults=True))
