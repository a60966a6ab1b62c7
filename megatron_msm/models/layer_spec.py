"""Which modules a transformer layer is made of, on a GPU and on a CPU."""

from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import LayerNormImpl, TransformerBlockSubmodules

from megatron_msm.config.lora import LoraConfig
from megatron_msm.models.attention import PackedDocumentAttention
from megatron_msm.models.lora import add_adapters
from megatron_msm.models.norm import RMSNorm
from megatron_msm.runtime.device import Runtime


def block_spec(
    runtime: Runtime, lora: LoraConfig | None, *, num_layers: int
) -> TransformerBlockSubmodules:
    """Return the layers of a model chunk and the norm that ends the model.

    On a GPU the modules are Transformer Engine's, elsewhere megatron-core's own and ours.
    """
    if runtime.is_cuda:
        layer, norm = get_gpt_layer_with_transformer_engine_spec(), LayerNormImpl
    else:
        layer, norm = _cpu_layer(), RMSNorm
    if lora is not None:
        add_adapters(layer, lora)
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=norm)


def _cpu_layer() -> ModuleSpec:
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = layer.submodules.pre_mlp_layernorm = RMSNorm
    layer.submodules.self_attention.submodules.core_attention = PackedDocumentAttention
    return layer
