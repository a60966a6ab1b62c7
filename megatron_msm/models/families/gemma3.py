"""Gemma 3, its text model: windows in five of six layers, with rotary embeddings of their own.

Norms stand before and after attention and MLP and multiply by 1 + weight; embeddings are multiplied
by sqrt(hidden size), rounded to their dtype; the MLP's gate goes through GELU.

Source: transformers 5.24, configuration_gemma3.py and modeling_gemma3.py.
"""

from collections.abc import Mapping

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.config_fields import Config, ConfigFields
from megatron_msm.models.families.decoder import (
    ATTENTION,
    GATED_MLP_ALONE,
    NORMS_AFTER,
    QK_NORM,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.families.window_layers import FULL, WINDOW, no_bound, read_window_layers
from megatron_msm.models.families.window_ropes import WindowRopes
from megatron_msm.models.tensor_table import HfTensor, ModelTable, TensorRule

_NORM_BEFORE_MLP = TensorRule(
    "decoder.layers.{layer}.mlp.linear_fc1.layer_norm_weight",
    (HfTensor("model.layers.{layer}.pre_feedforward_layernorm.weight", "H"),),
)
_ROPES = WindowRopes(
    theta_fields={FULL: "rope_theta", WINDOW: "rope_local_base_freq"},
    default_thetas={FULL: 1_000_000.0, WINDOW: 10_000.0},
)


def _more(fields: ConfigFields) -> Mapping[str, object]:
    return {
        "score_scale": fields.number("query_pre_attn_scalar") ** -0.5,
        "window_layers": read_window_layers(
            fields,
            full_every=fields.count("sliding_window_pattern"),
            rope=_ROPES.of_windows(fields),
        ),
    }


_DEFAULTS: Config = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}
GEMMA3 = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *QK_NORM, _NORM_BEFORE_MLP, *GATED_MLP_ALONE, *NORMS_AFTER),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    class_name="Gemma3ForCausalLM",
    defaults=_DEFAULTS,
    never_null=frozenset({"head_dim", "num_key_value_heads"}),
    only={
        "attention_bias": (False,),
        "attn_logit_softcapping": (None,),
        "final_logit_softcapping": (None,),
        "hidden_activation": ("gelu_pytorch_tanh",),
        "use_bidirectional_attention": (None, False),
    },
    harmless={
        "_sliding_window_pattern": "what layer_types were made of",
        "hidden_act": "this class reads hidden_activation",
    },
    read_rope=_ROPES.read,
    read_window=no_bound,
    shape={
        "qk_norm": True,
        "norms_after": True,
        "norms_add_one": True,
        "scales_embeddings": True,
        "activation": "gelu_tanh",
    },
    more_shape=_more,
)
