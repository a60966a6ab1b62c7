"""Which layouts a model and its batches can be split into: arithmetic, before any rank starts.

One function, `violations`, says what is wrong with a layout. `legal_layouts` lists those with which
nothing is, and `check_layout` refuses the others and proposes the nearest of them. No torch.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.precision import Fp8Config
from megatron_msm.errors import ConfigError
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.batch_shape import BatchShape
from megatron_msm.models.sizes.fp8_sizes import fp8_violations

# Rows of the embedding are padded to a multiple of this times the tensor parallel size, as
# Megatron-LM does (--make-vocab-size-divisible-by), so that matrix sizes suit the kernels.
VOCAB_MULTIPLE = 128
_NUM_PROPOSALS = 3


def padded_vocab_size(vocab_size: int, tensor_parallel: int) -> int:
    """Return the rows of the embedding when split over `tensor_parallel` ranks."""
    multiple = VOCAB_MULTIPLE * tensor_parallel
    return -(-vocab_size // multiple) * multiple


def layers_of_pipeline_stages(num_layers: int, parallel: ParallelConfig) -> tuple[int, ...]:
    """Return the layers of each stage, in the order that a micro batch meets them."""
    if parallel.layers_per_stage is not None:
        return parallel.layers_per_stage
    return (num_layers // parallel.num_pipeline_stages,) * parallel.num_pipeline_stages


def balanced_layers(num_layers: int, num_pipeline_stages: int) -> tuple[int, ...]:
    """Deal layers as evenly as possible; the middle gets the rest, as both ends have more to do.

    The first stage has the embedding, the last the logits and the loss.
    """
    least, rest = divmod(num_layers, num_pipeline_stages)
    first = (num_pipeline_stages - rest) // 2
    return tuple(least + (first <= stage < first + rest) for stage in range(num_pipeline_stages))


def check_layout(
    shape: ModelShape,
    parallel: ParallelConfig,
    batches: Sequence[BatchShape] = (),
    fp8: Fp8Config | None = None,
) -> None:
    """Refuse a layout that the model or the batches cannot be split into.

    Raises:
        ConfigError: The message has the arithmetic and the nearest legal layouts.
    """
    found = list(violations(shape, parallel, batches, fp8))
    if found:
        raise ConfigError(" ".join([*found, _proposal(shape, parallel, batches, fp8)]))


def violations(
    shape: ModelShape,
    parallel: ParallelConfig,
    batches: Sequence[BatchShape] = (),
    fp8: Fp8Config | None = None,
) -> Iterator[str]:
    """Yield a sentence for each thing that cannot be split as the layout says."""
    yield from _model_violations(shape, parallel)
    for batch in batches:
        yield from _batch_violations(batch, parallel)
    if fp8 is not None:
        yield from fp8_violations(fp8, shape, parallel, batches)


def _model_violations(shape: ModelShape, parallel: ParallelConfig) -> Iterator[str]:
    for size, name in (
        (shape.num_attention_heads, "attention heads"),
        (shape.num_query_groups, "key/value heads"),
        *(() if shape.experts else ((shape.ffn_hidden_size, "MLP columns"),)),
    ):
        if size % parallel.tensor:
            yield (
                f"parallel.tensor: {parallel.tensor} does not divide the model's {size} {name} "
                f"(remainder {size % parallel.tensor})."
            )
    yield from _stage_violations(shape, parallel)
    yield from _expert_violations(shape, parallel)


def _expert_violations(shape: ModelShape, parallel: ParallelConfig) -> Iterator[str]:
    if shape.experts is None:
        if parallel.expert > 1:
            yield f"parallel.expert: {parallel.expert}, but the model has no experts; use 1."
        return
    if shape.experts.num_experts % parallel.expert:
        yield (
            f"parallel.expert: {parallel.expert} does not divide the model's "
            f"{shape.experts.num_experts} experts "
            f"(remainder {shape.experts.num_experts % parallel.expert})."
        )
    # Each tensor parallel rank has whole experts and some of the tokens. Their gradients are added
    # up only when experts are assigned to ranks (megatron-core 0.16.1, tensor_parallel/layers.py:
    # `allreduce` of an expert's weights): without it they would be wrong, not slow.
    if parallel.tensor > 1 and parallel.expert == 1:
        yield (
            f"parallel.expert: 1, but a model with experts needs them assigned to ranks with "
            f"tensor {parallel.tensor}; set parallel.expert to a divisor of both its "
            f"{shape.experts.num_experts} experts and the {parallel.expert_pool} ranks of a stage."
        )
    # Source: megatron-core 0.16.1, transformer/moe/moe_layer.py:379.
    if parallel.tensor > 1 and not parallel.sequence:
        yield (
            f"parallel.sequence: false, but a model with experts needs it with tensor "
            f"{parallel.tensor}; set parallel.sequence=true."
        )


def _stage_violations(shape: ModelShape, parallel: ParallelConfig) -> Iterator[str]:
    given = parallel.layers_per_stage
    if given is not None:
        if sum(given) != shape.num_layers:
            yield (
                f"parallel.layers_per_stage: {' + '.join(map(str, given))} = {sum(given)}, but the "
                f"model has {shape.num_layers} layers."
            )
    elif shape.num_layers % parallel.num_pipeline_stages:
        yield (
            f"parallel.pipeline: {parallel.pipeline} x virtual_pipeline "
            f"{parallel.virtual_pipeline} = {parallel.num_pipeline_stages} stages do not divide "
            f"the model's {shape.num_layers} layers (remainder "
            f"{shape.num_layers % parallel.num_pipeline_stages}); parallel.layers_per_stage can "
            "split unevenly."
        )


def _batch_violations(batch: BatchShape, parallel: ParallelConfig) -> Iterator[str]:
    here = f"phases.{batch.name}"
    per_round = batch.micro_batch_size * parallel.data
    if batch.global_batch_size % per_round:
        yield (
            f"{here}.global_batch_size: {batch.global_batch_size} is not a multiple of "
            f"micro_batch_size {batch.micro_batch_size} x data {parallel.data} = {per_round}."
        )
    # Source: megatron-core 0.16.1, pipeline_parallel/schedules.py:1007.
    elif parallel.virtual_pipeline > 1 and batch.global_batch_size // per_round % parallel.pipeline:
        yield (
            f"{here}: {batch.global_batch_size // per_round} micro batches a step and rank "
            f"(global_batch_size {batch.global_batch_size} / {per_round}) are not a multiple of "
            f"parallel.pipeline {parallel.pipeline}, which the interleaved schedule needs."
        )
    if batch.align % parallel.document_multiple:
        yield (
            f"{here}.data.packing.align: {batch.align} is not a multiple of 2 x context "
            f"{parallel.context} = {parallel.document_multiple}, the pieces that each document is "
            f"cut into. Set {here}.data.packing.align={_lcm(batch.align, parallel)}."
        )
    if batch.seq_length % parallel.document_multiple:
        yield (
            f"{here}.seq_length: {batch.seq_length} is not a multiple of 2 x context "
            f"{parallel.context} = {parallel.document_multiple}."
        )
    positions = batch.positions(parallel)
    if parallel.sequence and positions % parallel.tensor:
        yield (
            f"parallel.sequence: {here} gives a rank micro_batch_size {batch.micro_batch_size} x "
            f"seq_length {batch.seq_length} / context {parallel.context} = {positions} positions, "
            f"which tensor {parallel.tensor} does not divide."
        )


def _lcm(align: int, parallel: ParallelConfig) -> int:
    return math.lcm(align, parallel.document_multiple)


def legal_layouts(
    shape: ModelShape,
    num_ranks: int,
    batches: Sequence[BatchShape] = (),
    fp8: Fp8Config | None = None,
) -> Iterator[ParallelConfig]:
    """Yield every legal layout on exactly `num_ranks` ranks, small sizes first.

    Layers are assigned evenly, or where the stages do not divide them by `balanced_layers`; of the
    many other uneven splits none is listed. Alignment is not held against a layout: it is a setting
    that context parallelism decides, as long as it still divides the sequences.
    """
    aligned = [_with_alignment(batch, num_ranks) for batch in batches]
    for tensor, pipeline, context in _model_sizes(shape, num_ranks):
        pool = num_ranks // pipeline
        for virtual, sequence, expert in itertools.product(
            range(1, shape.num_layers // pipeline + 1 if pipeline > 1 else 2),
            (False, True) if tensor > 1 else (False,),
            (1,) if shape.experts is None else _divisors(math.gcd(pool, shape.experts.num_experts)),
        ):
            layout = ParallelConfig(
                tensor=tensor,
                sequence=sequence,
                pipeline=pipeline,
                virtual_pipeline=virtual,
                layers_per_stage=_uneven(shape.num_layers, pipeline * virtual),
                context=context,
                expert=expert,
                data=pool // (tensor * context),
            )
            fits_sequences = all(b.seq_length % _lcm(b.align, layout) == 0 for b in batches)
            if fits_sequences and not any(violations(shape, layout, aligned, fp8)):
                yield layout


def _with_alignment(batch: BatchShape, num_ranks: int) -> BatchShape:
    pieces = math.lcm(*(2 * n for n in _divisors(num_ranks)))
    return replace(batch, align=math.lcm(batch.align, pieces))


def _model_sizes(shape: ModelShape, num_ranks: int) -> Iterator[tuple[int, int, int]]:
    heads = math.gcd(shape.num_attention_heads, shape.num_query_groups)
    if shape.experts is None:
        heads = math.gcd(heads, shape.ffn_hidden_size)
    for tensor in _divisors(math.gcd(num_ranks, heads)):
        for pipeline in _divisors(num_ranks // tensor):
            if pipeline <= shape.num_layers:
                for context in _divisors(num_ranks // (tensor * pipeline)):
                    yield tensor, pipeline, context


def _uneven(num_layers: int, num_pipeline_stages: int) -> tuple[int, ...] | None:
    if num_layers % num_pipeline_stages == 0:
        return None
    return balanced_layers(num_layers, num_pipeline_stages)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _proposal(
    shape: ModelShape,
    parallel: ParallelConfig,
    batches: Sequence[BatchShape],
    fp8: Fp8Config | None,
) -> str:
    """Return the nearest legal layouts: on as many ranks, or on the next smaller number."""
    for num_ranks in range(parallel.world_size, 0, -1):
        layouts = sorted(
            legal_layouts(shape, num_ranks, batches, fp8), key=lambda it: _far(it, parallel)
        )
        if layouts:
            nearest = "; or ".join(
                " ".join(layout_overrides(it, parallel, batches)) for it in layouts[:_NUM_PROPOSALS]
            )
            return f"Nearest legal layouts on {num_ranks} ranks: {nearest}."
    return "No layout of any size is legal for this model, its batches and this precision."


def layout_overrides(
    layout: ParallelConfig, current: ParallelConfig, batches: Sequence[BatchShape]
) -> list[str]:
    """Return the overrides that give a run with the layout `current` another one.

    The alignment of documents that it needs is among them, where it is not there.
    """
    alignments = [
        f"phases.{batch.name}.data.packing.align={_lcm(batch.align, layout)}"
        for batch in batches
        if batch.align % layout.document_multiple
    ]
    return [*layout.overrides_on(current, "parallel"), *alignments]


def _far(layout: ParallelConfig, wanted: ParallelConfig) -> float:
    """Return how far a layout is from the one asked for: doublings of its sizes, and changes."""
    sizes = ("tensor", "pipeline", "virtual_pipeline", "context", "expert", "data")
    doublings = [abs(math.log2(getattr(layout, name) / getattr(wanted, name))) for name in sizes]
    changes = sum(far > 0 for far in doublings)
    return sum(doublings) + 0.5 * changes + 0.1 * (layout.sequence != wanted.sequence)
