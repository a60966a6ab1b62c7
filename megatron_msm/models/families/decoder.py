"""Tensor rules that decoder-only transformers have in common; architectures are put together of it.

Megatron names are the keys of `GPTModel.sharded_state_dict`, one a layer. Both layer specs have the
same: Transformer Engine's fuses the two layer norms into the linear layers that follow, and
the local spec renames its own to match (megatron-core 0.16.1, models/gpt/gpt_layer_specs.py:417,
`sharded_state_dict_keys_map`), although its module is called `input_layernorm`. Only before experts
the second norm has a name of its own; layer_spec.py sees to it in the local spec. `*_ALONE` is
without the norm before. Norms after attention and MLP are parts of the sum that follows
(residual.py), which megatron-core calls `bda`.
"""

from megatron_msm.models.tensor_table import (
    HfTensor,
    QkvByGroup,
    StackedRows,
    TensorRule,
)

_HF = "model.layers.{layer}."
_MEGATRON = "decoder.layers.{layer}."

EMBEDDING = TensorRule(
    "embedding.word_embeddings.weight", (HfTensor("model.embed_tokens.weight", "VH"),)
)
FINAL_NORM = TensorRule("decoder.final_layernorm.weight", (HfTensor("model.norm.weight", "H"),))
OUTPUT = TensorRule(
    "output_layer.weight",
    (HfTensor("lm_head.weight", "VH"),),
    is_in=lambda shape: not shape.tie_word_embeddings,
)

ATTENTION_ALONE = (
    TensorRule(
        _MEGATRON + "self_attention.linear_qkv.weight",
        (
            HfTensor(_HF + "self_attn.q_proj.weight", "QH"),
            HfTensor(_HF + "self_attn.k_proj.weight", "KH"),
            HfTensor(_HF + "self_attn.v_proj.weight", "KH"),
        ),
        QkvByGroup(),
    ),
    TensorRule(
        _MEGATRON + "self_attention.linear_proj.weight",
        (HfTensor(_HF + "self_attn.o_proj.weight", "HQ"),),
    ),
)
ATTENTION = (
    TensorRule(
        _MEGATRON + "self_attention.linear_qkv.layer_norm_weight",
        (HfTensor(_HF + "input_layernorm.weight", "H"),),
    ),
    *ATTENTION_ALONE,
)
QKV_BIAS = (
    TensorRule(
        _MEGATRON + "self_attention.linear_qkv.bias",
        (
            HfTensor(_HF + "self_attn.q_proj.bias", "Q"),
            HfTensor(_HF + "self_attn.k_proj.bias", "K"),
            HfTensor(_HF + "self_attn.v_proj.bias", "K"),
        ),
        QkvByGroup(),
        is_in=lambda shape: shape.qkv_bias,
    ),
)
ATTENTION_BIASES = (
    *QKV_BIAS,
    TensorRule(
        _MEGATRON + "self_attention.linear_proj.bias",
        (HfTensor(_HF + "self_attn.o_proj.bias", "H"),),
        is_in=lambda shape: shape.attention_output_bias,
    ),
)
QK_NORM = (
    TensorRule(
        _MEGATRON + "self_attention.q_layernorm.weight",
        (HfTensor(_HF + "self_attn.q_norm.weight", "D"),),
    ),
    TensorRule(
        _MEGATRON + "self_attention.k_layernorm.weight",
        (HfTensor(_HF + "self_attn.k_norm.weight", "D"),),
    ),
)
QK_NORM_OVER_HEADS = (
    TensorRule(
        _MEGATRON + "self_attention.q_layernorm.weight",
        (HfTensor(_HF + "self_attn.q_norm.weight", "Q"),),
    ),
    TensorRule(
        _MEGATRON + "self_attention.k_layernorm.weight",
        (HfTensor(_HF + "self_attn.k_norm.weight", "K"),),
    ),
)
GATED_MLP_ALONE = (
    TensorRule(
        _MEGATRON + "mlp.linear_fc1.weight",
        (
            HfTensor(_HF + "mlp.gate_proj.weight", "FH"),
            HfTensor(_HF + "mlp.up_proj.weight", "FH"),
        ),
        StackedRows(),
    ),
    TensorRule(
        _MEGATRON + "mlp.linear_fc2.weight", (HfTensor(_HF + "mlp.down_proj.weight", "HF"),)
    ),
)
GATED_MLP = (
    TensorRule(
        _MEGATRON + "mlp.linear_fc1.layer_norm_weight",
        (HfTensor(_HF + "post_attention_layernorm.weight", "H"),),
    ),
    *GATED_MLP_ALONE,
)
MLP_BIASES = (
    TensorRule(
        _MEGATRON + "mlp.linear_fc1.bias",
        (
            HfTensor(_HF + "mlp.gate_proj.bias", "F"),
            HfTensor(_HF + "mlp.up_proj.bias", "F"),
        ),
        StackedRows(),
        is_in=lambda shape: shape.mlp_bias,
    ),
    TensorRule(
        _MEGATRON + "mlp.linear_fc2.bias",
        (HfTensor(_HF + "mlp.down_proj.bias", "H"),),
        is_in=lambda shape: shape.mlp_bias,
    ),
)
NORMS_AFTER = (
    TensorRule(
        _MEGATRON + "self_attn_bda.norm.weight",
        (HfTensor(_HF + "post_attention_layernorm.weight", "H"),),
    ),
    TensorRule(
        _MEGATRON + "mlp_bda.norm.weight",
        (HfTensor(_HF + "post_feedforward_layernorm.weight", "H"),),
    ),
)


def experts(block: str, *, gate: str, up: str, down: str) -> tuple[TensorRule, ...]:
    """Return the rules of a mixture of experts, whose names differ from family to family.

    Args:
        block: What holds router and experts.
        gate: The projection of an expert that is activated.
        up: The one that it is multiplied by.
        down: The one of the product.
    """
    of_layer = f"{_HF}{block}."
    of_expert = of_layer + "experts.{expert}."
    return (
        TensorRule(
            _MEGATRON + "pre_mlp_layernorm.weight",
            (HfTensor(_HF + "post_attention_layernorm.weight", "H"),),
        ),
        TensorRule(_MEGATRON + "mlp.router.weight", (HfTensor(of_layer + "gate.weight", "EH"),)),
        TensorRule(
            _MEGATRON + "mlp.experts.experts.linear_fc1.weight",
            (
                HfTensor(f"{of_expert}{gate}.weight", "XH"),
                HfTensor(f"{of_expert}{up}.weight", "XH"),
            ),
            StackedRows(),
        ),
        TensorRule(
            _MEGATRON + "mlp.experts.experts.linear_fc2.weight",
            (HfTensor(f"{of_expert}{down}.weight", "HX"),),
        ),
    )


TIED_COPIES = (("lm_head.weight", "model.embed_tokens.weight"),)
ROTARY_BUFFERS = ("model.rotary_emb.inv_freq", _HF + "self_attn.rotary_emb.inv_freq")


def decoder_rules(*layer_rules: TensorRule) -> tuple[TensorRule, ...]:
    """Return the rules of a whole model whose layers have `layer_rules`."""
    return (EMBEDDING, *layer_rules, FINAL_NORM, OUTPUT)
