"""Granite 3, dense: Llama with multipliers of embeddings, scores, residuals and logits.

Source: transformers 5.24, modeling_granite.py.
"""

from collections.abc import Mapping

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.config_fields import ConfigFields
from megatron_msm.models.families.biases import BIAS_DEFAULTS, biases
from megatron_msm.models.families.decoder import (
    ATTENTION,
    ATTENTION_BIASES,
    GATED_MLP,
    MLP_BIASES,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.tensor_table import ModelTable

_MULTIPLIERS = {
    "embedding_multiplier": "embedding_multiplier",
    "score_scale": "attention_multiplier",
    "residual_multiplier": "residual_multiplier",
    "logits_scaling": "logits_scaling",
}


def _multipliers_and_biases(fields: ConfigFields) -> Mapping[str, object]:
    multipliers = {ours: fields.number(name) for ours, name in _MULTIPLIERS.items()}
    return {**multipliers, **biases(fields)}


GRANITE = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *ATTENTION_BIASES, *GATED_MLP, *MLP_BIASES),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    class_name="GraniteForCausalLM",
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        **BIAS_DEFAULTS,
        **dict.fromkeys(_MULTIPLIERS.values(), 1.0),
    },
    # The class has no such field, and takes one that is given as it is.
    never_null=frozenset({"head_dim"}),
    more_shape=_multipliers_and_biases,
)
