"""Gemma 3, its text model: windows in five of six layers, with rotary embeddings of their own.

Norms stand before and after attention and MLP and multiply by 1 + weight; embeddings are multiplied
by sqrt(hidden size), rounded to their dtype; the MLP's gate goes through GELU.

Source: transformers 5.24, configuration_gemma3.py and modeling_gemma3.py.
"""

from collections.abc import Mapping

from megatron_msm.formats.json_types import JsonValue
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
from megatron_msm.models.rope_reading import Rope, read_rope
from megatron_msm.models.shape import RopeShape
from megatron_msm.models.tensor_table import HfTensor, ModelTable, TensorRule

_NORM_BEFORE_MLP = TensorRule(
    "decoder.layers.{layer}.mlp.linear_fc1.layer_norm_weight",
    (HfTensor("model.layers.{layer}.pre_feedforward_layernorm.weight", "H"),),
)
_THETA_FIELDS = {FULL: "rope_theta", WINDOW: "rope_local_base_freq"}
_DEFAULT_THETAS = {FULL: 1_000_000.0, WINDOW: 10_000.0}


def _full_rope(fields: ConfigFields) -> Rope:
    """Read the rotary embeddings of the layers that see all positions, and remark on all.

    transformers 5 has a section for each kind of layer in `rope_parameters`; what a section lacks
    comes from the fields of transformers 4, which knows nothing else.
    """
    full, window = (_rope_of(fields, kind) for kind in (FULL, WINDOW))
    remarks = tuple(
        remark.replace("rotary embeddings", f"rotary embeddings of {kind} layers")
        for kind, rope in ((FULL, full), (WINDOW, window))
        for remark in rope.remarks
    )
    return Rope(full.theta, full.scaling, remarks)


def _rope_of(fields: ConfigFields, kind: str) -> Rope:
    """Read one kind's section as if it were all that the file says."""
    parameters = fields.take("rope_parameters")
    sections = {} if parameters is None else parameters
    if not isinstance(sections, dict) or not {*sections} <= {FULL, WINDOW}:
        needed = f"an object with sections {FULL} and {WINDOW} is needed"
        raise fields.refusal("rope_parameters", parameters, needed)
    theta_field = _THETA_FIELDS[kind]
    theta, scaling = fields.take(theta_field), fields.take("rope_scaling")
    alone: dict[str, JsonValue] = {
        "max_position_embeddings": fields.take("max_position_embeddings"),
        "rope_parameters": sections.get(kind),
    }
    if fields.is_given(theta_field):
        alone["rope_theta"] = theta
    if kind == FULL and scaling is not None:
        alone["rope_scaling"] = _put_into(fields, scaling, sections)
    source = f"{fields.source}, rotary embeddings of {kind} layers"
    defaults: Config = {"rope_theta": _DEFAULT_THETAS[kind]}
    return read_rope(ConfigFields(alone, source=source, defaults=defaults, never_null=()))


def _put_into(fields: ConfigFields, scaling: JsonValue, sections: Config) -> JsonValue:
    """Return `rope_scaling` with the theta of the section that transformers puts it into.

    The section that it makes when there is none has a `rope_type`, which an old `type` would not
    take the place of.
    """
    if not isinstance(scaling, dict):
        return scaling
    if "type" in scaling and "rope_type" not in scaling:
        raise fields.refusal("rope_scaling", scaling, "transformers needs rope_type for type")
    section = sections.get(FULL)
    if fields.take("rope_parameters") is not None and not isinstance(section, dict):
        needed = f"transformers puts it into rope_parameters.{FULL}, which is not there"
        raise fields.refusal("rope_scaling", scaling, needed)
    if isinstance(section, dict) and "rope_theta" in section:
        return {"rope_theta": section["rope_theta"], **scaling}
    return scaling


def _more(fields: ConfigFields) -> Mapping[str, object]:
    rope = _rope_of(fields, WINDOW)
    return {
        "score_scale": fields.number("query_pre_attn_scalar") ** -0.5,
        "window_layers": read_window_layers(
            fields,
            full_every=fields.count("sliding_window_pattern"),
            rope=RopeShape(theta=rope.theta, scaling=rope.scaling),
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
    read_rope=_full_rope,
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
