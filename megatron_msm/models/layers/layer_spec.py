"""Which modules a transformer layer is made of, on a GPU and on a CPU."""

from collections.abc import Sequence

from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import LayerNormImpl, TransformerBlockSubmodules

from megatron_msm.config.lora import LoraConfig
from megatron_msm.models.layers.attention import PackedDocumentAttention
from megatron_msm.models.layers.lora import add_adapters
from megatron_msm.models.layers.norm import RMSNorm
from megatron_msm.models.layers.own_attention import OwnAttention
from megatron_msm.models.layers.rope import scale_of_scores
from megatron_msm.models.shape import LayerAttention, ModelShape
from megatron_msm.runtime.device import Runtime


def block_spec(
    shape: ModelShape, runtime: Runtime, lora: LoraConfig | None, *, layers: Sequence[int]
) -> TransformerBlockSubmodules:
    """Return the layers of a model chunk, counted from 0, and the norm that ends the model.

    On a GPU the modules are Transformer Engine's, elsewhere megatron-core's own and ours. Both name
    their weights alike in checkpoints.
    """
    specs: dict[LayerAttention, ModuleSpec] = {}
    for layer in layers:
        attention = shape.attention_of(layer)
        if attention not in specs:
            specs[attention] = _layer(shape, runtime, lora, attention)
    return TransformerBlockSubmodules(
        layer_specs=[specs[shape.attention_of(layer)] for layer in layers],
        layer_norm=LayerNormImpl if runtime.is_cuda else RMSNorm,
    )


def _layer(
    shape: ModelShape, runtime: Runtime, lora: LoraConfig | None, attention: LayerAttention
) -> ModuleSpec:
    layer = _gpu_layer(shape) if runtime.is_cuda else _cpu_layer(shape)
    if shape.window_layers is not None:
        spec = layer.submodules.self_attention
        spec.module = OwnAttention
        spec.params |= {
            "window": attention.window,
            "rope": shape.ropes.index(attention.rope) if len(shape.ropes) > 1 else None,
            "softmax_scale": scale_of_scores(shape, attention.rope),
        }
    if lora is not None:
        add_adapters(layer, lora)
    return layer


def _gpu_layer(shape: ModelShape) -> ModuleSpec:
    return get_gpt_layer_with_transformer_engine_spec(
        num_experts=None if shape.experts is None else shape.experts.num_experts,
        moe_grouped_gemm=shape.experts is not None,
        qk_layernorm=shape.qk_norm,
    )


def _cpu_layer(shape: ModelShape) -> ModuleSpec:
    layer = get_gpt_layer_local_spec(
        num_experts=None if shape.experts is None else shape.experts.num_experts,
        normalization="RMSNorm",
    )
    layer.submodules.input_layernorm = layer.submodules.pre_mlp_layernorm = RMSNorm
    attention = layer.submodules.self_attention.submodules
    attention.core_attention = PackedDocumentAttention
    if shape.qk_norm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    if shape.experts is not None:
        # Transformer Engine's layer does not fuse the norm before experts, so it keeps its name.
        del layer.submodules.sharded_state_dict_keys_map["pre_mlp_layernorm."]
    return layer
