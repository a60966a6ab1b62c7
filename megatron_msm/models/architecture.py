"""What an architecture is: how its config.json is read, and its table of tensors. No torch.

An architecture is one file that fills in an `Architecture`; docs/architectures.md walks through
one. The fields that all have in common are read here; every other field of the file is refused
unless config_fields.py or the architecture says that it changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from megatron_msm.errors import CheckpointError
from megatron_msm.models.config_fields import DTYPES, Config, ConfigFields
from megatron_msm.models.rope_reading import Rope, read_rope
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.tensor_table import ModelTable

ReadShape = Callable[[ConfigFields], Mapping[str, object]]
ReadRope = Callable[[ConfigFields], Rope]


@dataclass(frozen=True)
class HfConfig:
    """A config.json that was read whole."""

    shape: ModelShape
    remarks: tuple[str, ...]
    """What another generation of transformers reads in it."""


def _no_more(fields: ConfigFields) -> Mapping[str, object]:
    return {}


def no_window(fields: ConfigFields) -> int | None:
    """Check that no sliding window is asked for, which this class of transformers would ignore."""
    fields.refuse_unless("sliding_window", (None,))
    return None


@dataclass(frozen=True)
class Architecture:
    """One Hugging Face `model_type`."""

    table: ModelTable
    class_name: str
    """The model's class in transformers."""
    defaults: Config
    """Defaults of its configuration class, for fields that are read."""
    never_null: frozenset[str] = frozenset()
    """Fields that may be absent, but for which the class does not take null."""
    only: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """Fields of config.json that may be absent, and the values that are supported otherwise."""
    harmless: Config = field(default_factory=dict)
    """Fields that change nothing, and why."""
    read_window: Callable[[ConfigFields], int | None] = no_window
    """Read the sliding window: positions that a token sees, itself included; None without one."""
    shape: Config = field(default_factory=dict)
    """Fields of `ModelShape` that every model of this type has."""
    more_shape: ReadShape = _no_more
    """Further fields of `ModelShape`, read from config.json."""
    read_rope: ReadRope = read_rope
    """Read the rotary embeddings of the layers that see all positions."""

    def read(self, config: Config, source: str) -> HfConfig:
        """Translate config.json.

        Args:
            config: Its content.
            source: File name for messages.

        Raises:
            CheckpointError: A field is malformed, unknown, or has a value that is not supported.
        """
        fields = ConfigFields(
            config, source=source, defaults=self.defaults, never_null=self.never_null
        )
        rope = self.read_rope(fields)
        content = {
            **_common_shape(fields, rope),
            "max_position_embeddings": self._exact_positions(fields),
            **self.shape,
            **self.more_shape(fields),
        }
        _check_dtype(fields)
        fields.refuse_unless("architectures", (None, [self.class_name]))
        fields.refuse_the_rest(self.only, self.harmless)
        try:
            return HfConfig(ModelShape.model_validate(content), rope.remarks)
        except ValidationError as error:
            first = error.errors()[0]
            raise CheckpointError(
                f"{source}: {'.'.join(map(str, first['loc']))} cannot be {first['input']!r}: "
                f"{first['msg']}."
            ) from None

    def _exact_positions(self, fields: ConfigFields) -> int:
        """Return the longest document for which full attention is what the model computes.

        A sliding window of W positions changes nothing in a document of W tokens. Longer ones are
        not supported, so the window is the model's length here.
        """
        positions = fields.count("max_position_embeddings")
        window = self.read_window(fields)
        return positions if window is None else min(positions, window)


def _common_shape(fields: ConfigFields, rope: Rope) -> Mapping[str, object]:
    heads, hidden = fields.count("num_attention_heads"), fields.count("hidden_size")
    groups = fields.count_or_none("num_key_value_heads") or heads
    head_dim = fields.count_or_none("head_dim")
    if head_dim is None:
        if hidden % heads:
            needed = f"num_attention_heads, {heads}, has to divide it when there is no head_dim"
            raise fields.refusal("hidden_size", hidden, needed)
        head_dim = hidden // heads
    if heads % groups:
        needed = f"it has to divide num_attention_heads, {heads}"
        raise fields.refusal("num_key_value_heads", groups, needed)
    if head_dim % 2:
        raise fields.refusal("head_dim", head_dim, "rotary embeddings need an even size of heads")
    return {
        "model_type": fields.take("model_type"),
        "num_layers": fields.count("num_hidden_layers"),
        "hidden_size": hidden,
        "ffn_hidden_size": fields.count("intermediate_size"),
        "num_attention_heads": heads,
        "num_query_groups": groups,
        "head_dim": head_dim,
        "vocab_size": fields.count("vocab_size"),
        "norm_epsilon": fields.number("rms_norm_eps"),
        "tie_word_embeddings": fields.flag("tie_word_embeddings"),
        "rope_theta": rope.theta,
        "rope_scaling": rope.scaling,
    }


def _check_dtype(fields: ConfigFields) -> None:
    """Check the dtype that transformers loads the weights in, under its new and its old name."""
    found = {name: fields.take(name) for name in ("dtype", "torch_dtype")}
    for name, value in found.items():
        if value is not None and value not in DTYPES:
            raise fields.refusal(name, value, f"supported: {', '.join(DTYPES)}")
    if None not in found.values() and len({*found.values()}) > 1:
        needed = f"but torch_dtype is {found['torch_dtype']!r}. Remove one of them"
        raise fields.refusal("dtype", found["dtype"], needed)
