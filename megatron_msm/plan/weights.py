"""How many weights a rank holds. No torch."""

from dataclasses import dataclass

from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.adapter_sizes import projections
from megatron_msm.models.sizes.layout import layers_of_pipeline_stages, padded_vocab_size


@dataclass(frozen=True)
class RankWeights:
    """Weights of one rank, counted."""

    total: int
    """All that it holds, adapters included."""
    trainable: int
    """Those of them that are trained."""
    experts: int = 0
    """Those of the trained ones that are experts', which fewer ranks have copies of."""


def layer_weights(shape: ModelShape, tensor: int) -> int:
    """Return the weights of one layer on one of `tensor` ranks, without experts.

    Norms, an expert model's router and biases of outputs are on each of the ranks; norms over all
    heads are split as the heads are.
    """
    matrices = sum(one.inputs * sum(one.outputs) for one in projections(shape).values())
    biases = shape.query_size + 2 * shape.key_size if shape.qkv_bias else 0
    biases += 2 * shape.ffn_hidden_size if shape.mlp_bias else 0
    of_outputs = shape.hidden_size * (shape.attention_output_bias + shape.mlp_bias)
    norms = shape.hidden_norms_of_layer * shape.hidden_size
    norms += 2 * shape.head_dim if shape.qk_norm else 0
    of_heads = shape.query_size + shape.key_size if shape.qk_norm_over_heads else 0
    router = shape.experts.num_experts * shape.hidden_size if shape.experts else 0
    return (matrices + biases + of_heads) // tensor + of_outputs + norms + router


def layer_expert_weights(shape: ModelShape, expert: int) -> int:
    """Return the experts' weights of one layer on one of `expert` ranks."""
    if shape.experts is None:
        return 0
    each = 3 * shape.hidden_size * shape.experts.ffn_hidden_size
    return shape.experts.num_experts // expert * each


def layer_adapter_weights(shape: ModelShape, lora: LoraConfig, tensor: int) -> int:
    """Return the adapter weights of one layer on one of `tensor` ranks.

    Of A and B the one whose width the ranks share is split, the other is on each of them.
    """
    known = projections(shape)
    total = 0
    for target in lora.targets:
        inputs, outputs = known[target].inputs, known[target].outputs
        a, b = len(outputs) * inputs, sum(outputs)
        is_row = target in ("linear_proj", "linear_fc2")
        total += lora.rank * ((a // tensor + b) if is_row else (a + b // tensor))
    return total


def pipeline_stages_of_rank(parallel: ParallelConfig, pipeline_rank: int) -> range:
    """Return the stages of a pipeline rank: every `pipeline`-th one."""
    return range(pipeline_rank, parallel.num_pipeline_stages, parallel.pipeline)


def layers_of_rank(shape: ModelShape, parallel: ParallelConfig, pipeline_rank: int) -> int:
    """Return how many layers a pipeline rank holds."""
    assigned = layers_of_pipeline_stages(shape.num_layers, parallel)
    return sum(assigned[stage] for stage in pipeline_stages_of_rank(parallel, pipeline_rank))


def weights_of_rank(
    shape: ModelShape, parallel: ParallelConfig, lora: LoraConfig | None, pipeline_rank: int
) -> RankWeights:
    """Count the weights of a pipeline rank, of any tensor parallel rank in it."""
    layers = layers_of_rank(shape, parallel, pipeline_rank)
    is_first, is_last = pipeline_rank == 0, pipeline_rank == parallel.pipeline - 1
    table = padded_vocab_size(shape.vocab_size, parallel.tensor) // parallel.tensor
    table *= shape.hidden_size
    experts = layers * layer_expert_weights(shape, parallel.expert)
    base = layers * layer_weights(shape, parallel.tensor) + experts
    base += table if is_first else 0
    # A last stage that is not the first has a copy of tied embeddings, too.
    base += table if is_last and not (is_first and shape.tie_word_embeddings) else 0
    base += shape.hidden_size if is_last else 0
    if lora is None:
        return RankWeights(base, base, experts)
    adapters = layers * layer_adapter_weights(shape, lora, parallel.tensor)
    return RankWeights(base + adapters, adapters)
