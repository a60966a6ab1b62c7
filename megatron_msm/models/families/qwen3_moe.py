"""Qwen3-MoE: Qwen3's attention, and experts in the place of every layer's MLP.

Layers without experts (`mlp_only_layers`, `decoder_sparse_step`) are refused: no published model
has them, and every layer would need rules of its own.
"""

from collections.abc import Mapping

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.config_fields import ConfigFields
from megatron_msm.models.families.decoder import (
    ATTENTION,
    QK_NORM,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
    experts,
)
from megatron_msm.models.families.expert_shape import expert_shape
from megatron_msm.models.tensor_table import ModelTable


def _experts(fields: ConfigFields) -> Mapping[str, object]:
    # transformers 5 writes the new name, the published configs have the old one.
    names = [name for name in ("num_local_experts", "num_experts") if fields.is_given(name)]
    num_experts = fields.count(names[0] if names else "num_experts")
    for name in names[1:]:
        if fields.count(name) != num_experts:
            needed = f"but {names[0]} is {num_experts}. Remove one of them"
            raise fields.refusal(name, fields.count(name), needed)
    return expert_shape(
        fields,
        num_experts=num_experts,
        ffn_hidden_size=fields.count("moe_intermediate_size"),
        normalize_weights=fields.flag("norm_topk_prob"),
    )


def _window(fields: ConfigFields) -> int | None:
    """Read the window, which all layers have or none."""
    window = fields.count_or_none("sliding_window")
    return window if fields.flag("use_sliding_window") else None


QWEN3_MOE = Architecture(
    table=ModelTable(
        rules=decoder_rules(
            *ATTENTION, *QK_NORM, *experts("mlp", gate="gate_proj", up="up_proj", down="down_proj")
        ),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    class_name="Qwen3MoeForCausalLM",
    defaults={
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
    },
    never_null=frozenset({"head_dim", "num_key_value_heads"}),
    only={
        "attention_bias": (False,),
        "mlp_only_layers": (None, []),
        "decoder_sparse_step": (1,),
        "output_router_logits": (None, False),
        # Named by some published configs, and not known to the class.
        "qkv_bias": (None, False),
        "shared_expert_intermediate_size": (None, 0),
        "use_qk_norm": (None, True),
    },
    harmless={"max_window_layers": "here all layers have the window, or none"},
    read_window=_window,
    shape={"qk_norm": True},
    more_shape=_experts,
)
