"""Qwen3, dense: queries and keys are normalised in each head; heads have a size of their own."""

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.families.decoder import (
    ATTENTION,
    GATED_MLP,
    QK_NORM,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.families.qwen_window import WINDOW_DEFAULTS, window_of_layers
from megatron_msm.models.tensor_table import ModelTable

QWEN3 = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *QK_NORM, *GATED_MLP),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    class_name="Qwen3ForCausalLM",
    defaults={
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        **WINDOW_DEFAULTS,
    },
    never_null=frozenset({"head_dim"}),
    only={"attention_bias": (False,)},
    read_window=window_of_layers,
    shape={"qk_norm": True},
)
