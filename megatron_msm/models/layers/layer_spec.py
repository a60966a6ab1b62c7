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
from megatron_msm.models.layers.bias import with_bias
from megatron_msm.models.layers.lora import add_adapters
from megatron_msm.models.layers.norm import RMSNorm
from megatron_msm.models.layers.norm_over_heads import NormOverHeads
from megatron_msm.models.layers.own_attention import OwnAttention
from megatron_msm.models.layers.residual import ResidualSum
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
        if shape.norms_after or shape.residual_multiplier != 1.0:
            _set_sums(layer, shape, config, norm)
        if shape.mlp_bias:
            mlp = submodules_of(layer.submodules.mlp)
            mlp.linear_fc1, mlp.linear_fc2 = map(with_bias, (mlp.linear_fc1, mlp.linear_fc2))
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
    if shape.has_layers_of_kinds:
        spec.module = OwnAttention
        spec.params |= {
            "window": attention.window,
            "rope": None if attention.rope is None else shape.ropes.index(attention.rope),
            "num_ropes": len(shape.ropes),
            "softmax_scale": scale_of_scores(shape, attention.rope),
        }
    modules = submodules_of(spec)
    if shape.attention_output_bias:
        modules.linear_proj = with_bias(modules.linear_proj)
    if shape.qk_norm_over_heads:
        of_queries, of_keys = (
            ModuleSpec(module=NormOverHeads, params={"num_heads": num, "tp_group": tp_group})
            for num in (shape.num_attention_heads, shape.num_query_groups)
        )
        modules.q_layernorm, modules.k_layernorm = of_queries, of_keys


def _set_sums(layer: ModuleSpec, shape: ModelShape, config: TransformerConfig, norm: Norm) -> None:
    """Put in how outputs of attention and MLP are added to the residual."""
    params = {
        "config": config,
        "norm": norm if shape.norms_after else None,
        "multiplier": shape.residual_multiplier,
    }
    spec = ModuleSpec(module=ResidualSum, params=params)
    layer.submodules.self_attn_bda = layer.submodules.mlp_bda = spec


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
