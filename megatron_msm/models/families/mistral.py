"""Mistral, dense. Its sliding window bounds the length that is supported."""

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.config_fields import ConfigFields
from megatron_msm.models.families.decoder import (
    ATTENTION,
    GATED_MLP,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.tensor_table import ModelTable


def _window(fields: ConfigFields) -> int | None:
    """Read the window; a switch for it, as Qwen's configs have, is not read by this class."""
    window = fields.count_or_none("sliding_window")
    fields.refuse_unless("use_sliding_window", (window is not None,))
    return window


MISTRAL = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *GATED_MLP),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    class_name="MistralForCausalLM",
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "sliding_window": 4096,
    },
    never_null=frozenset({"num_key_value_heads"}),
    # Biases that the class does not have.
    only={"attention_bias": (None, False), "mlp_bias": (None, False)},
    read_window=_window,
)
