"""Which modules a transformer layer is made of, on a GPU and on a CPU."""

from collections.abc import Callable, Sequence

import torch
from megatron.core.extensions.transformer_engine import TEColumnParallelLinear, TENorm
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_msm.config.lora import LoraConfig
from megatron_msm.models.layers.attention import PackedDocumentAttention
from megatron_msm.models.layers.lora import add_adapters
from megatron_msm.models.layers.norm import RMSNorm
from megatron_msm.models.layers.norm_over_heads import NormOverHeads
from megatron_msm.models.layers.own_attention import OwnAttention
from megatron_msm.models.layers.residual import NormedSum
from megatron_msm.models.layers.rope import scale_of_scores
from megatron_msm.models.shape import LayerAttention, ModelShape
from megatron_msm.runtime.device import Runtime
from megatron_msm.runtime.megatron_versions import submodules_of

Norm = Callable[..., torch.nn.Module]


def block_spec(
    shape: ModelShape,
    config: TransformerConfig,
    runtime: Runtime,
    lora: LoraConfig | None,
    *,
    layers: Sequence[int],
    tp_group: torch.distributed.ProcessGroup,
) -> TransformerBlockSubmodules:
    """Return the layers of a model chunk, counted from 0, and the norm that ends the model.

    On a GPU the modules are Transformer Engine's, elsewhere megatron-core's own and ours. Both name
    their weights alike in checkpoints.
    """
    norm: Norm = TENorm if runtime.is_cuda else RMSNorm
    specs: dict[LayerAttention, ModuleSpec] = {}
    for number in layers:
        attention = shape.attention_of(number)
        if attention in specs:
            continue
        layer = _gpu_layer(shape) if runtime.is_cuda else _cpu_layer(shape)
        _set_attention(layer, shape, attention, tp_group)
        if shape.norms_after:
            added = ModuleSpec(module=NormedSum, params={"config": config, "norm": norm})
            layer.submodules.self_attn_bda = layer.submodules.mlp_bda = added
        if lora is not None:
            add_adapters(layer, lora)
        specs[attention] = layer
    return TransformerBlockSubmodules(
        layer_specs=[specs[shape.attention_of(number)] for number in layers], layer_norm=norm
    )


def _set_attention(
    layer: ModuleSpec,
    shape: ModelShape,
    attention: LayerAttention,
    tp_group: torch.distributed.ProcessGroup,
) -> None:
    """Put in what a layer's attention has beyond megatron-core's; on a GPU and on a CPU."""
    spec = layer.submodules.self_attention
    if shape.window_layers is not None:
        spec.module = OwnAttention
        spec.params |= {
            "window": attention.window,
            "rope": shape.ropes.index(attention.rope) if len(shape.ropes) > 1 else None,
            "softmax_scale": scale_of_scores(shape, attention.rope),
        }
    if shape.qk_norm_over_heads:
        for name, num_heads in (
            ("q_layernorm", shape.num_attention_heads),
            ("k_layernorm", shape.num_query_groups),
        ):
            params = {"num_heads": num_heads, "tp_group": tp_group}
            setattr(submodules_of(spec), name, ModuleSpec(module=NormOverHeads, params=params))


def _gpu_layer(shape: ModelShape) -> ModuleSpec:
    layer = get_gpt_layer_with_transformer_engine_spec(
        num_experts=None if shape.experts is None else shape.experts.num_experts,
        moe_grouped_gemm=shape.experts is not None,
        qk_layernorm=shape.qk_norm,
    )
    if not shape.norms_before:
        # These are made with the norm before them inside.
        submodules_of(layer.submodules.self_attention).linear_qkv = TEColumnParallelLinear
        submodules_of(layer.submodules.mlp).linear_fc1 = TEColumnParallelLinear
    return layer


def _cpu_layer(shape: ModelShape) -> ModuleSpec:
    layer = get_gpt_layer_local_spec(
        num_experts=None if shape.experts is None else shape.experts.num_experts,
        normalization="RMSNorm",
    )
    before = RMSNorm if shape.norms_before else IdentityOp
    layer.submodules.input_layernorm = layer.submodules.pre_mlp_layernorm = before
    attention = layer.submodules.self_attention.submodules
    attention.core_attention = PackedDocumentAttention
    if shape.qk_norm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    if shape.experts is not None:
        # Transformer Engine's layer does not fuse the norm before experts, so it keeps its name.
        del layer.submodules.sharded_state_dict_keys_map["pre_mlp_layernorm."]
    return layer
