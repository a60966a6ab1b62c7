"""Which modules a transformer layer is made of, on a GPU and on a CPU."""

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
from megatron_msm.models.shape import ModelShape
from megatron_msm.runtime.device import Runtime


def block_spec(
    shape: ModelShape, runtime: Runtime, lora: LoraConfig | None, *, num_layers: int
) -> TransformerBlockSubmodules:
    """Return the layers of a model chunk and the norm that ends the model.

    On a GPU the modules are Transformer Engine's, elsewhere megatron-core's own and ours. Both name
    their weights alike in checkpoints.
    """
    if runtime.is_cuda:
        layer, norm = _gpu_layer(shape), LayerNormImpl
    else:
        layer, norm = _cpu_layer(shape), RMSNorm
    if lora is not None:
        add_adapters(layer, lora)
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=norm)


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
