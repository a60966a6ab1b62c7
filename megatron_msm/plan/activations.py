"""Bytes of activations that a rank keeps for the backward pass. No torch. An estimate.

Counted as in Korthikanti et al. 2022 (arXiv 2205.05198, section 4), for the layers that are trained
here: RMSNorm, grouped-query attention by a flash kernel (no matrix of scores), SwiGLU, no dropout.
For each position of a layer, of hidden size h, query width q, key/value width k and MLP width f,
over t tensor parallel ranks, the layer keeps:

    inputs of both norms, and their outputs             4 h         / t with sequence parallelism
    inputs of norms after attention and MLP             2 h         likewise
    queries, keys, values, the attention's output       2 q + 2 k   / t
    inputs of norms of queries and keys                 q + k       / t
    both outputs of the first MLP matrix, their product 3 f         / t

Of experts a position keeps the inputs and products of those that it passes through.

With LoRA the same: each adapter's gradient needs the input of its projection.
"""

from megatron_msm.config.memory import MemoryConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.layout import layers_of_pipeline_stages
from megatron_msm.plan.weights import pipeline_stages_of_rank


def layer_bytes_per_position(
    shape: ModelShape, parallel: ParallelConfig, memory: MemoryConfig, *, dtype_bytes: int
) -> float:
    """Return the bytes that one layer keeps for each position of this rank's sequences."""
    width = _kept_by_norms(shape, parallel, memory) + _kept_inside(shape, parallel, memory)
    return width * dtype_bytes


def _kept_by_norms(shape: ModelShape, parallel: ParallelConfig, memory: MemoryConfig) -> float:
    split = parallel.tensor if parallel.sequence else 1
    if memory.recompute == "full":
        return shape.hidden_size / split / memory.recompute_layers
    recomputes_norms = memory.recompute == "selective" and "layernorm" in memory.recompute_modules
    inputs_and_outputs = 2 + (2 * shape.norms_before) + (2 * shape.norms_after)
    again = 1 if recomputes_norms and shape.experts else 0
    return (inputs_and_outputs - again) * shape.hidden_size / split


def _kept_inside(shape: ModelShape, parallel: ParallelConfig, memory: MemoryConfig) -> float:
    if memory.recompute == "full":
        return 0.0
    again = memory.recompute_modules if memory.recompute == "selective" else ()
    mlp = 3.0 * shape.active_ffn_hidden_size
    if shape.experts is not None:
        mlp += shape.experts.experts_per_token * shape.hidden_size
    if ("moe" if shape.experts else "mlp") in again:
        mlp = 0.0
    heads = 2 * shape.query_size + 2 * shape.key_size
    if shape.qk_norm or shape.qk_norm_over_heads:
        heads += shape.query_size + shape.key_size
    return (heads + mlp) / parallel.tensor


def layers_in_flight(
    shape: ModelShape, parallel: ParallelConfig, pipeline_rank: int, num_micro_batches: int
) -> float:
    """Return layers x micro batches whose activations a pipeline rank keeps at its fullest.

    Source: megatron-core 0.16.1, pipeline_parallel/schedules.py, `get_pp_rank_microbatches`: the
    warm-up has p - r - 1 micro batches, or with v chunks 2 (p - r - 1) + (v - 1) p chunk passes;
    one more is in work.
    """
    assigned = layers_of_pipeline_stages(shape.num_layers, parallel)
    mine = [assigned[stage] for stage in pipeline_stages_of_rank(parallel, pipeline_rank)]
    behind = parallel.pipeline - pipeline_rank - 1
    chunks = parallel.virtual_pipeline
    passes = behind if chunks == 1 else 2 * behind + (chunks - 1) * parallel.pipeline
    passes = min(passes + 1, num_micro_batches * chunks)
    return passes * sum(mine) / len(mine)


def activation_bytes(
    shape: ModelShape,
    parallel: ParallelConfig,
    memory: MemoryConfig,
    pipeline_rank: int,
    *,
    positions: int,
    num_micro_batches: int,
    dtype_bytes: int,
) -> float:
    """Return the activations of a pipeline rank at its fullest.

    Args:
        shape: The model.
        parallel: The layout.
        memory: What is computed again.
        pipeline_rank: Which rank of the pipeline.
        positions: Of a micro batch on this rank: micro batch size x sequence length / context.
        num_micro_batches: Of one optimizer step and data parallel rank.
        dtype_bytes: Of activations.
    """
    kept = layer_bytes_per_position(shape, parallel, memory, dtype_bytes=dtype_bytes)
    total = kept * layers_in_flight(shape, parallel, pipeline_rank, num_micro_batches)
    if memory.recompute == "full":
        # The layers that are just being computed again keep all of theirs for a moment.
        whole = layer_bytes_per_position(shape, parallel, MemoryConfig(), dtype_bytes=dtype_bytes)
        total += whole * memory.recompute_layers
    return total * positions


def logits_bytes(
    shape: ModelShape,
    parallel: ParallelConfig,
    memory: MemoryConfig,
    *,
    positions: int,
    dtype_bytes: int,
    is_trained: bool,
) -> float:
    """Return what the loss needs on the last stage (see models/layers/output_loss.py).

    For each token and vocabulary entry: logits and their gradient in the model's dtype, and
    probabilities in float32. The gradient of the output weight is added up in float32.
    """
    rows = shape.vocab_size / parallel.tensor
    tokens = min(positions, memory.loss_chunk_tokens or positions)
    weight_gradient = rows * shape.hidden_size * (4 + dtype_bytes) if is_trained else 0.0
    return tokens * rows * (2 * dtype_bytes + 4) + weight_gradient
