"""Which sizes FP8 matrix products allow, after tensor and context parallelism have split them."""

from collections.abc import Iterator, Sequence

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.precision import Fp8Config
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.batch_shape import BatchShape
from megatron_msm.runtime.fp8 import dimension_multiple


def fp8_violations(
    fp8: Fp8Config, shape: ModelShape, parallel: ParallelConfig, batches: Sequence[BatchShape]
) -> Iterator[str]:
    """Yield a sentence for each dimension that a recipe cannot multiply, and for layers to spare.

    Each weight of a linear layer is used in both directions, and so are the activations, so that
    every dimension of all of them counts.
    """
    multiple, recipe = dimension_multiple(fp8), f"runtime.fp8: recipe {fp8.recipe!r}"
    for name, size, ways in _weight_dimensions(shape, parallel):
        if size % ways == 0 and size // ways % multiple:
            yield (
                f"{recipe} needs dimensions that {multiple} divides, but the {name} {size} / "
                f"tensor {ways} = {size // ways} is not one."
            )
    for batch in batches:
        # Under sequence parallelism a rank quantizes its own share before the others get it.
        ways = parallel.tensor if parallel.sequence else 1
        positions = batch.positions(parallel)
        if positions % (multiple * ways):
            yield (
                f"{recipe} needs positions that {multiple} x {ways} = {multiple * ways} divides, "
                f"but phases.{batch.name} gives a rank micro_batch_size {batch.micro_batch_size} x "
                f"seq_length {batch.seq_length} / context {parallel.context} = {positions}."
            )
    yield from _bf16_layer_violations(fp8, shape, parallel)


def _weight_dimensions(
    shape: ModelShape, parallel: ParallelConfig
) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and the ranks that it is split over, of each weight's dimensions."""
    heads = shape.query_size + 2 * shape.key_size
    yield "hidden size", shape.hidden_size, 1
    yield "rows of query, key and value", heads, parallel.tensor
    yield "width of all heads", shape.query_size, parallel.tensor
    if shape.experts is None:
        yield "MLP width", shape.ffn_hidden_size, parallel.tensor
    else:
        # Experts are whole on a rank; their tokens are padded on the way to them.
        yield "width of an expert", shape.experts.ffn_hidden_size, 1


def _bf16_layer_violations(
    fp8: Fp8Config, shape: ModelShape, parallel: ParallelConfig
) -> Iterator[str]:
    # Source: megatron-core 0.16.1, transformer/transformer_config.py:993.
    most = shape.num_layers // parallel.pipeline
    for field in ("first_layers_bf16", "last_layers_bf16"):
        found = getattr(fp8, field)
        if found > most:
            yield (
                f"runtime.fp8.{field}: {found} is more than the {shape.num_layers} layers / "
                f"pipeline {parallel.pipeline} = {most} of a pipeline rank."
            )
