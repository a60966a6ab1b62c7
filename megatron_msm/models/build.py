"""A megatron-core GPTModel from a model's shape and a run's layout."""

import functools
import math
from collections.abc import Callable, Mapping

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.memory import MemoryConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.models.layers.experts import mark_as_split, move_to
from megatron_msm.models.layers.layer_spec import block_spec
from megatron_msm.models.layers.lora import freeze_base
from megatron_msm.models.layers.multipliers import divide_logits, multiply_embeddings
from megatron_msm.models.layers.output_loss import ChunkedLossModel
from megatron_msm.models.layers.recompute import recompute_settings
from megatron_msm.models.layers.rope import (
    RopesOfLayers,
    inverse_frequencies,
    scale_of_scores,
)
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.layout import (
    check_layout,
    layers_of_pipeline_stages,
    padded_vocab_size,
)
from megatron_msm.runtime.device import HAS_FUSED_WEIGHT_GRADIENT, Runtime
from megatron_msm.runtime.fp8 import megatron_precision
from megatron_msm.runtime.process_groups import ParallelRanks


def transformer_config(
    shape: ModelShape,
    parallel: ParallelConfig,
    runtime: Runtime,
    memory: MemoryConfig = MemoryConfig(),
) -> TransformerConfig:
    """Translate our configuration to megatron-core's. The only place that does."""
    return TransformerConfig(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.ffn_hidden_size,
        num_attention_heads=shape.num_attention_heads,
        num_query_groups=shape.num_query_groups,
        kv_channels=shape.head_dim,
        softmax_scale=scale_of_scores(shape, shape.rope),
        normalization="RMSNorm",
        layernorm_epsilon=shape.norm_epsilon,
        layernorm_zero_centered_gamma=shape.norms_add_one,
        activation_func=_activation(shape, runtime),
        gated_linear_unit=True,
        add_bias_linear=False,
        add_qkv_bias=shape.qkv_bias,
        qk_layernorm=shape.qk_norm,
        **_expert_settings(shape, runtime),
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=parallel.tensor,
        sequence_parallel=parallel.sequence,
        context_parallel_size=parallel.context,
        expert_model_parallel_size=parallel.expert,
        expert_tensor_parallel_size=1,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=(
            parallel.virtual_pipeline if parallel.virtual_pipeline > 1 else None
        ),
        pipeline_model_parallel_layout=_stages(shape, parallel),
        # With several chunks a rank sends to the same neighbour twice at a time; batched messages
        # of two ranks would then be taken for one another (schedules.py, `_communicate`).
        overlap_p2p_comm=parallel.virtual_pipeline > 1,
        batch_p2p_comm=parallel.virtual_pipeline == 1,
        pipeline_dtype=runtime.params_dtype,
        # Frees what was sent to the next stage. NCCL has read it by then, gloo may not have.
        deallocate_pipeline_outputs=runtime.is_cuda,
        params_dtype=runtime.params_dtype,
        bf16=runtime.params_dtype is torch.bfloat16,
        # The loss is a sum over tokens, divided by the global batch's token count after all
        # micro batches and ranks are in (finalize_model_grads).
        calculate_per_token_loss=True,
        # Lengths of pipeline messages are constant: every micro batch is padded to its full size.
        variable_seq_lengths=False,
        # Every weight is loaded from a checkpoint before the first step. `perform_initialization`
        # stays on: without it the layers do not mark their weights as split over tensor parallel
        # ranks (tensor_parallel/layers.py:151), and the gradient norm counts one rank's part only.
        perform_initialization=True,
        init_method=_leave_undefined,
        output_layer_init_method=_leave_undefined,
        embedding_init_method=_leave_undefined,
        masked_softmax_fusion=False,
        persist_layer_norm=runtime.is_cuda,
        bias_activation_fusion=runtime.is_cuda,
        bias_dropout_fusion=runtime.is_cuda,
        apply_rope_fusion=runtime.is_cuda,
        # A kernel of apex that adds a weight's gradient into its fp32 buffer. megatron-core's
        # output layer asks for it when this is on (tensor_parallel/layers.py).
        deterministic_mode=runtime.is_deterministic,
        gradient_accumulation_fusion=runtime.is_cuda and HAS_FUSED_WEIGHT_GRADIENT,
        **megatron_precision(runtime.fp8).transformer,
        **recompute_settings(memory, runtime),
    )


def _activation(shape: ModelShape, runtime: Runtime) -> Callable[..., torch.Tensor]:
    if shape.activation == "silu":
        return torch.nn.functional.silu
    if runtime.is_cuda:
        # The name under which megatron-core finds its fused kernel, which computes GELU by tanh
        # (fusions/fused_bias_geglu.py).
        return torch.nn.functional.gelu
    return functools.partial(torch.nn.functional.gelu, approximate="tanh")


def _stages(shape: ModelShape, parallel: ParallelConfig) -> list[list[str]] | None:
    """Return what each stage holds, for megatron-core's `PipelineParallelLayerLayout`."""
    if parallel.layers_per_stage is None:
        return None
    stages = [["decoder"] * num for num in layers_of_pipeline_stages(shape.num_layers, parallel)]
    return [["embedding", *stages[0]], *stages[1:-1], [*stages[-1], "loss"]]


def _expert_settings(shape: ModelShape, runtime: Runtime) -> Mapping[str, object]:
    """Return megatron-core's settings of a mixture of experts, none for a dense model."""
    if shape.experts is None:
        return {}
    return {
        "num_moe_experts": shape.experts.num_experts,
        "moe_ffn_hidden_size": shape.experts.ffn_hidden_size,
        "moe_router_topk": shape.experts.experts_per_token,
        # The softmax over the chosen experts' logits is the normalised one over all.
        "moe_router_pre_softmax": not shape.experts.normalize_weights,
        "moe_router_dtype": "fp32",
        # As transformers trains it by default: no auxiliary loss, no token dropped.
        "moe_router_load_balancing_type": "none",
        "moe_grouped_gemm": runtime.is_cuda,
        "moe_token_dispatcher_type": "alltoall" if runtime.is_cuda else "allgather",
    }


def _leave_undefined(weight: torch.Tensor) -> None:
    """Initialise nothing."""


def build_model(
    shape: ModelShape,
    parallel: ParallelConfig,
    runtime: Runtime,
    ranks: ParallelRanks,
    lora: LoraConfig | None = None,
    memory: MemoryConfig = MemoryConfig(),
) -> list[GPTModel]:
    """Build this rank's part of the model, with undefined weights, on the runtime's device.

    With `lora` the model has adapters, and only they are trainable.

    Returns:
        The rank's model chunks in the order of their layers; one without virtual pipeline.

    Raises:
        ConfigError: The layout does not fit the model.
    """
    check_layout(shape, parallel)
    config = transformer_config(shape, parallel, runtime, memory)
    return [
        _build_chunk(shape, parallel, config, runtime, ranks, lora, memory, chunk=chunk)
        for chunk in range(parallel.virtual_pipeline)
    ]


def _build_chunk(
    shape: ModelShape,
    parallel: ParallelConfig,
    config: TransformerConfig,
    runtime: Runtime,
    ranks: ParallelRanks,
    lora: LoraConfig | None,
    memory: MemoryConfig,
    *,
    chunk: int,
) -> GPTModel:
    has_logits = ranks.is_last_stage and chunk == parallel.virtual_pipeline - 1
    padded = padded_vocab_size(shape.vocab_size, parallel.tensor)
    stage = chunk * parallel.pipeline + ranks.groups.pp.rank()
    assigned = layers_of_pipeline_stages(shape.num_layers, parallel)
    first = sum(assigned[:stage])
    layers = range(first, first + assigned[stage])
    model = _model_class(shape, memory)(
        config=config,
        transformer_layer_spec=block_spec(
            shape, config, runtime, lora, layers=layers, tp_group=ranks.groups.tp
        ),
        vocab_size=padded,
        max_sequence_length=shape.max_position_embeddings,
        pre_process=ranks.is_first_stage and chunk == 0,
        post_process=has_logits,
        share_embeddings_and_output_weights=shape.tie_word_embeddings,
        position_embedding_type="rope",
        rotary_base=shape.rope_theta,
        pg_collection=ranks.groups,
        vp_stage=chunk if parallel.virtual_pipeline > 1 else None,
    )
    model.rotary_pos_emb = _rotary_embedding(shape, ranks)
    # On a GPU the layers are made there, in their types, FP8 weights among them.
    if not runtime.is_cuda:
        model.to(dtype=runtime.params_dtype)
    if shape.experts is not None:
        mark_as_split(model)
        move_to(model, runtime.device)
    if model.pre_process and shape.embedding_multiplier != 1.0:
        multiply_embeddings(model, shape.embedding_multiplier)
    if model.pre_process and shape.scales_embeddings:
        root = torch.tensor(math.sqrt(shape.hidden_size), dtype=runtime.params_dtype, device="cpu")
        multiply_embeddings(model, root.item())
    if has_logits and shape.logits_scaling != 1.0:
        divide_logits(model, shape.logits_scaling)
    if lora is not None:
        freeze_base(model)
    if has_logits and padded != shape.vocab_size:
        _exclude_padded_vocabulary(model, shape.vocab_size, ranks)
    return model


def _rotary_embedding(shape: ModelShape, ranks: ParallelRanks) -> torch.nn.Module:
    modules = []
    for rope in shape.ropes:
        module = RotaryEmbedding(
            kv_channels=shape.head_dim,
            rotary_percent=1.0,
            rotary_base=rope.theta,
            cp_group=ranks.groups.cp,
        )
        if rope.scaling is not None:
            module.inv_freq = inverse_frequencies(rope, shape.head_dim)
        modules.append(module)
    return modules[0] if len(modules) == 1 else RopesOfLayers(modules)


def _model_class(shape: ModelShape, memory: MemoryConfig) -> Callable[..., GPTModel]:
    model_class: Callable[..., GPTModel] = GPTModel
    if memory.loss_chunk_tokens is None:
        return model_class
    return functools.partial(
        ChunkedLossModel,
        real_vocab_size=shape.vocab_size,
        chunk_tokens=memory.loss_chunk_tokens,
    )


def _exclude_padded_vocabulary(model: GPTModel, vocab_size: int, ranks: ParallelRanks) -> None:
    """Keep the padding rows of the vocabulary out of the softmax.

    Megatron-LM lets them in with logits near zero, which shifts every loss a little from the
    model that is exported. Their logits become -inf here, so they get neither weight nor gradient.
    """
    tp_group = ranks.groups.tp

    def mask_padding(
        module: torch.nn.Module, args: object, output: torch.Tensor | tuple[torch.Tensor, ...]
    ) -> object:
        if isinstance(output, torch.Tensor):
            return output  # losses, made without the padding (output_loss.py)
        logits_SBV, bias = output
        first_row = tp_group.rank() * logits_SBV.shape[-1]
        num_real = min(max(vocab_size - first_row, 0), logits_SBV.shape[-1])
        if num_real == logits_SBV.shape[-1]:
            return output
        is_padding_V = torch.arange(logits_SBV.shape[-1], device=logits_SBV.device) >= num_real
        lowest = torch.finfo(logits_SBV.dtype).min
        return logits_SBV.masked_fill(is_padding_V, lowest), bias

    model.output_layer.register_forward_hook(mask_padding)
