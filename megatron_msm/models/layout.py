"""Which layouts a model can be split into: arithmetic, checked before any rank starts."""

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.errors import ConfigError
from megatron_msm.models.architecture import ModelShape

# Rows of the embedding are padded to a multiple of this times the tensor parallel size, as
# Megatron-LM does (--make-vocab-size-divisible-by), so that matrix sizes suit the kernels.
VOCAB_MULTIPLE = 128


def padded_vocab_size(vocab_size: int, tensor_parallel: int) -> int:
    """Return the rows of the embedding when split over `tensor_parallel` ranks."""
    multiple = VOCAB_MULTIPLE * tensor_parallel
    return -(-vocab_size // multiple) * multiple


def check_layout(shape: ModelShape, parallel: ParallelConfig) -> None:
    """Refuse a layout that the model cannot be split into.

    Raises:
        ConfigError: A parallel size does not divide what it splits; the message has the arithmetic.
    """
    for size, name in (
        (shape.num_attention_heads, "attention heads"),
        (shape.num_query_groups, "key/value heads"),
        (shape.ffn_hidden_size, "MLP columns"),
    ):
        if size % parallel.tensor:
            legal = [n for n in range(1, shape.num_query_groups + 1) if _divides_all(n, shape)]
            raise ConfigError(
                f"parallel.tensor: {parallel.tensor} does not divide the model's {size} {name}. "
                f"Use one of {legal}."
            )
    if shape.num_layers % parallel.pipeline:
        legal = [n for n in range(1, shape.num_layers + 1) if shape.num_layers % n == 0]
        raise ConfigError(
            f"parallel.pipeline: {parallel.pipeline} does not divide the model's "
            f"{shape.num_layers} layers. Use one of {legal}."
        )


def _divides_all(n: int, shape: ModelShape) -> bool:
    sizes = (shape.num_attention_heads, shape.num_query_groups, shape.ffn_hidden_size)
    return all(size % n == 0 for size in sizes)
