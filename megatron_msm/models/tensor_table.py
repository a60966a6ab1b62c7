"""How the weights of an architecture map between Hugging Face and Megatron, as a table.

An architecture is a list of `TensorRule`s: one Megatron tensor each, the Hugging Face tensors it is
made of, and how they are fused. `expand` fills in the layers and sizes of one model; what comes out
(`MappedTensor`) is used as it stands in both directions, so import and export cannot disagree.

    rule:   decoder.layers.{layer}.mlp.linear_fc1.weight <- gate_proj (ffn, hidden), up_proj (...)
    mapped: decoder.layers.3.mlp.linear_fc1.weight (3072, 576) <- model.layers.3.mlp.gate_proj...

To add an architecture: write its table in a file of its own (llama.py is the pattern) and name it
in `registry.py`. Biases and QK norms are more rules; only a new way of fusing needs code here.

Dimensions: V vocabulary, H hidden, Q heads x head size, K key/value heads x head size, F ffn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from megatron_msm.models.architecture import ModelShape

Size = tuple[int, ...]


class Fusion(Protocol):
    """How the Hugging Face tensors of a rule become one Megatron tensor. Bits are only moved."""

    def fuse(self, parts: Sequence[torch.Tensor], shape: ModelShape) -> torch.Tensor:
        """Return the Megatron tensor made of `parts`."""
        ...

    def split(
        self, fused: torch.Tensor, sizes: Sequence[Size], shape: ModelShape
    ) -> list[torch.Tensor]:
        """Return the parts again, with the given sizes. They may be views of `fused`."""
        ...


@dataclass(frozen=True)
class AsItIs:
    """One tensor, unchanged."""

    def fuse(self, parts: Sequence[torch.Tensor], shape: ModelShape) -> torch.Tensor:
        """Return the only part."""
        (part,) = parts
        return part

    def split(
        self, fused: torch.Tensor, sizes: Sequence[Size], shape: ModelShape
    ) -> list[torch.Tensor]:
        """Return the tensor without the rows that pad the vocabulary."""
        (size,) = sizes
        return [fused[: size[0]]]


@dataclass(frozen=True)
class StackedRows:
    """Parts one below the other, as megatron-core's gated MLP reads them: [gate; up].

    Source: megatron-core 0.16.1, transformer/mlp.py `glu` (`torch.chunk(x, 2, dim=-1)`, the first
    half is activated) and `apply_swiglu_sharded_factory` (the global tensor is [w; v]).
    """

    def fuse(self, parts: Sequence[torch.Tensor], shape: ModelShape) -> torch.Tensor:
        """Concatenate along rows; parts of different dtypes are promoted."""
        return torch.cat(list(parts))

    def split(
        self, fused: torch.Tensor, sizes: Sequence[Size], shape: ModelShape
    ) -> list[torch.Tensor]:
        """Return views of the rows of each part."""
        return list(torch.split(fused, [size[0] for size in sizes]))


@dataclass(frozen=True)
class QkvByGroup:
    """Query, key and value rows interleaved by key/value head: q q k v | q q k v | ...

    Rows of a group: its query heads in order, then its key head, then its value head. Works for
    weights (rows, hidden) and biases (rows,).

    Source: megatron-core 0.16.1, transformer/attention.py,
    `SelfAttention.get_query_key_value_tensors`.
    """

    def fuse(self, parts: Sequence[torch.Tensor], shape: ModelShape) -> torch.Tensor:
        """Interleave q (Q, ...), k (K, ...) and v (K, ...) to (Q + 2K, ...)."""
        groups = shape.num_query_groups
        grouped = [part.reshape(groups, -1, shape.head_dim, *part.shape[1:]) for part in parts]
        return torch.cat(grouped, dim=1).reshape(-1, *parts[0].shape[1:])

    def split(
        self, fused: torch.Tensor, sizes: Sequence[Size], shape: ModelShape
    ) -> list[torch.Tensor]:
        """Take (Q + 2K, ...) apart into q, k and v."""
        heads_per_group = shape.num_attention_heads // shape.num_query_groups
        grouped = fused.reshape(
            shape.num_query_groups, heads_per_group + 2, shape.head_dim, *fused.shape[1:]
        )
        parts = torch.split(grouped, [heads_per_group, 1, 1], dim=1)
        return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]


@dataclass(frozen=True)
class HfTensor:
    """A Hugging Face tensor: its name, `{layer}` left open, and its dimensions as letters."""

    name: str
    dims: str
    """One letter a dimension, see the module's legend: `QH` is (heads x head size, hidden)."""


@dataclass(frozen=True)
class TensorRule:
    """One Megatron tensor and the Hugging Face tensors that it is made of."""

    megatron: str
    hf: tuple[HfTensor, ...]
    fusion: Fusion = AsItIs()
    only_untied: bool = False
    """True when a model with tied embeddings does not have it."""


@dataclass(frozen=True)
class ModelTable:
    """The whole mapping of one architecture."""

    rules: tuple[TensorRule, ...]
    tied_copies: tuple[tuple[str, str], ...] = ()
    """(copy, original): Hugging Face names that a file of a tied model may hold twice."""
    computed_buffers: tuple[str, ...] = ()
    """Names that old files hold and that are computed from the config; not weights."""

    def expand(self, shape: ModelShape) -> "tuple[MappedTensor, ...]":
        """Return every tensor of a model of this shape: the ones without a layer, then by layer."""
        rules = [
            rule for rule in self.rules if not (rule.only_untied and shape.tie_word_embeddings)
        ]
        whole = [rule for rule in rules if "{layer}" not in rule.megatron]
        layered = [rule for rule in rules if "{layer}" in rule.megatron]
        mapped = [MappedTensor.of(rule, shape, layer=0) for rule in whole]
        for layer in range(shape.num_layers):
            mapped += [MappedTensor.of(rule, shape, layer=layer) for rule in layered]
        return tuple(mapped)

    def buffer_names(self, shape: ModelShape) -> frozenset[str]:
        """Return the names of computed buffers, layers filled in."""
        return frozenset(
            name.format(layer=layer)
            for name in self.computed_buffers
            for layer in range(shape.num_layers)
        )


@dataclass(frozen=True)
class MappedTensor:
    """One Megatron tensor of one model, with names and sizes filled in."""

    key: str
    """Key in the Megatron checkpoint."""
    size: Size
    """Size in the Megatron checkpoint, without padding of the vocabulary."""
    hf_names: tuple[str, ...]
    hf_sizes: tuple[Size, ...]
    fusion: Fusion
    shape: ModelShape
    may_be_padded: bool
    """True when a training checkpoint may hold more rows (vocabulary padding) than `size`."""

    @classmethod
    def of(cls, rule: TensorRule, shape: ModelShape, *, layer: int) -> "MappedTensor":
        """Fill in one layer of a rule."""
        hf_sizes = tuple(_size_of(tensor.dims, shape) for tensor in rule.hf)
        return cls(
            key=rule.megatron.format(layer=layer),
            size=(sum(size[0] for size in hf_sizes), *hf_sizes[0][1:]),
            hf_names=tuple(tensor.name.format(layer=layer) for tensor in rule.hf),
            hf_sizes=hf_sizes,
            fusion=rule.fusion,
            shape=shape,
            may_be_padded=rule.hf[0].dims.startswith("V"),
        )

    def fuse(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the Megatron tensor; `parts` are in the order of `hf_names`."""
        return self.fusion.fuse(parts, self.shape)

    def split(self, fused: torch.Tensor) -> list[torch.Tensor]:
        """Return the Hugging Face tensors, in the order of `hf_names`."""
        return self.fusion.split(fused, self.hf_sizes, self.shape)

    def fits(self, size: Sequence[int]) -> bool:
        """Return whether a checkpoint's tensor of this size is this one, padded or not."""
        found = tuple(size)
        if not self.may_be_padded:
            return found == self.size
        return len(found) > 0 and found[0] >= self.size[0] and found[1:] == self.size[1:]


def hf_tensors(mapped: Sequence[MappedTensor]) -> Iterator[tuple[str, Size]]:
    """Yield name and size of every Hugging Face tensor of the mapping."""
    for tensor in mapped:
        yield from zip(tensor.hf_names, tensor.hf_sizes, strict=True)


def _size_of(dims: str, shape: ModelShape) -> Size:
    sizes = {
        "V": shape.vocab_size,
        "H": shape.hidden_size,
        "Q": shape.num_attention_heads * shape.head_dim,
        "K": shape.num_query_groups * shape.head_dim,
        "F": shape.ffn_hidden_size,
    }
    return tuple(sizes[dim] for dim in dims)
