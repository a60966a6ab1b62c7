"""Mixtral: Mistral's attention, and experts in the place of every layer's MLP.

Source: transformers 5.24, configuration_mixtral.py and modeling_mixtral.py.
"""

from collections.abc import Mapping

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.config_fields import ConfigFields
from megatron_msm.models.families.decoder import (
    ATTENTION,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
    experts,
)
from megatron_msm.models.families.expert_shape import expert_shape
from megatron_msm.models.families.mistral import MISTRAL
from megatron_msm.models.rope_reading import Rope, read_rope
from megatron_msm.models.tensor_table import ModelTable


def _rope(fields: ConfigFields) -> Rope:
    rope = read_rope(fields)
    is_yarn = rope.scaling is not None and rope.scaling.kind == "yarn"
    if is_yarn and fields.take("head_dim") is None:
        raise fields.refusal("head_dim", None, "transformers does not load yarn without it")
    return rope


def _experts(fields: ConfigFields) -> Mapping[str, object]:
    return expert_shape(
        fields,
        num_experts=fields.count("num_local_experts"),
        ffn_hidden_size=fields.count("intermediate_size"),
        normalize_weights=True,
    )


MIXTRAL = Architecture(
    table=ModelTable(
        rules=decoder_rules(
            *ATTENTION, *experts("block_sparse_moe", gate="w1", up="w3", down="w2")
        ),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    class_name="MixtralForCausalLM",
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
    },
    never_null=frozenset({"num_key_value_heads"}),
    only={
        # Biases that the class does not have.
        "attention_bias": (None, False),
        "output_router_logits": (None, False),
        "router_jitter_noise": (None, 0, 0.0),
    },
    read_rope=_rope,
    read_window=MISTRAL.read_window,
    more_shape=_experts,
)
