"""The tensors of Llama 2, Llama 3 and SmolLM, tied or untied, with grouped query attention.

Megatron names are the keys of `GPTModel.sharded_state_dict`, one a layer. Both layer specs have the
same: Transformer Engine's fuses the two layer norms into the linear layers that follow, and
the local spec renames its own to match (megatron-core 0.16.1, models/gpt/gpt_layer_specs.py:417,
`sharded_state_dict_keys_map`), although its module is called `input_layernorm`.
"""

from megatron_msm.models.tensor_table import (
    HfTensor,
    ModelTable,
    QkvByGroup,
    StackedRows,
    TensorRule,
)

_HF = "model.layers.{layer}."
_MEGATRON = "decoder.layers.{layer}."

LLAMA = ModelTable(
    rules=(
        TensorRule(
            "embedding.word_embeddings.weight", (HfTensor("model.embed_tokens.weight", "VH"),)
        ),
        TensorRule(
            _MEGATRON + "self_attention.linear_qkv.layer_norm_weight",
            (HfTensor(_HF + "input_layernorm.weight", "H"),),
        ),
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
        TensorRule(
            _MEGATRON + "mlp.linear_fc1.layer_norm_weight",
            (HfTensor(_HF + "post_attention_layernorm.weight", "H"),),
        ),
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
        TensorRule("decoder.final_layernorm.weight", (HfTensor("model.norm.weight", "H"),)),
        TensorRule("output_layer.weight", (HfTensor("lm_head.weight", "VH"),), only_untied=True),
    ),
    tied_copies=(("lm_head.weight", "model.embed_tokens.weight"),),
    computed_buffers=(
        "model.rotary_emb.inv_freq",
        _HF + "self_attn.rotary_emb.inv_freq",
    ),
)
