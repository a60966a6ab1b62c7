"""How the weights of an architecture map between Hugging Face and Megatron, as a table.

An architecture is a list of `TensorRule`s: one Megatron tensor each, the Hugging Face tensors it is
made of, and how they are fused. `expand` fills in the layers and sizes of one model; what comes out
(`MappedTensor`) is used as it stands in both directions, so import and export cannot disagree.

    rule:   decoder.layers.{layer}.mlp.linear_fc1.weight <- gate_proj (ffn, hidden), up_proj (...)
    mapped: decoder.layers.3.mlp.linear_fc1.weight (3072, 576) <- model.layers.3.mlp.gate_proj...

Experts lie in one Megatron tensor, expert first. Each expert is a `MappedTensor` of its own, a
piece of that tensor, so that no more than one expert is ever held.

An architecture is one file (llama.py is the pattern) that is named in `registry.py`; only a new way
of fusing needs code here. No torch at import: a login node reads shapes of models through this.

Dimensions: V vocabulary, H hidden, Q heads x head size, K key/value heads x head size, D head size,
F ffn, E experts, X ffn of one expert.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from megatron_msm.models.shape import ModelShape

if TYPE_CHECKING:
    import torch

Size = tuple[int, ...]


class Fusion(Protocol):
    """Where the Hugging Face tensors of a rule lie in one Megatron tensor. Bits are only moved.

    Works on rows: weights, biases, and the B matrices of adapters are fused alike. One method for
    both directions: what is written to the views when a model is imported is read from them when
    it is exported.
    """

    def views(
        self, fused: "torch.Tensor", sizes: Sequence[Size], shape: ModelShape
    ) -> list["torch.Tensor"]:
        """Return views of `fused`, one a part, with the part's elements in their order.

        Args:
            fused: The Megatron tensor.
            sizes: Of the parts. A view may have another size, with more dimensions.
            shape: The model's.
        """
        ...


@dataclass(frozen=True)
class AsItIs:
    """One tensor, unchanged."""

    def views(
        self, fused: "torch.Tensor", sizes: Sequence[Size], shape: ModelShape
    ) -> list["torch.Tensor"]:
        """Return the tensor without the rows that pad the vocabulary."""
        (size,) = sizes
        return [fused[: size[0]]]


@dataclass(frozen=True)
class StackedRows:
    """Parts one below the other, as megatron-core's gated MLP reads them: [gate; up].

    Source: megatron-core 0.16.1, transformer/mlp.py `glu` (`torch.chunk(x, 2, dim=-1)`, the first
    half is activated) and `apply_swiglu_sharded_factory` (the global tensor is [w; v]).
    """

    def views(
        self, fused: "torch.Tensor", sizes: Sequence[Size], shape: ModelShape
    ) -> list["torch.Tensor"]:
        """Return the rows of each part."""
        return list(fused.split([size[0] for size in sizes]))


@dataclass(frozen=True)
class QkvByGroup:
    """Query, key and value rows interleaved by key/value head: q q k v | q q k v | ...

    Rows of a group: its query heads in order, then its key head, then its value head. Works for
    weights (rows, hidden) and biases (rows,).

    Source: megatron-core 0.16.1, transformer/attention.py,
    `SelfAttention.get_query_key_value_tensors`.
    """

    def views(
        self, fused: "torch.Tensor", sizes: Sequence[Size], shape: ModelShape
    ) -> list["torch.Tensor"]:
        """Return q, k and v in (Q + 2K, ...), each (groups, heads of a group, D, ...)."""
        heads_per_group = shape.num_attention_heads // shape.num_query_groups
        grouped = fused.view(
            shape.num_query_groups, heads_per_group + 2, shape.head_dim, *fused.shape[1:]
        )
        return list(grouped.split([heads_per_group, 1, 1], dim=1))


@dataclass(frozen=True)
class HfTensor:
    """A Hugging Face tensor: its name, `{layer}` and `{expert}` left open, and its dimensions."""

    name: str
    dims: str
    """One letter a dimension, see the module's legend: `QH` is (heads x head size, hidden)."""


def _always(shape: ModelShape) -> bool:
    return True


@dataclass(frozen=True)
class TensorRule:
    """One Megatron tensor and the Hugging Face tensors that it is made of."""

    megatron: str
    hf: tuple[HfTensor, ...]
    fusion: Fusion = AsItIs()
    is_in: Callable[[ModelShape], bool] = _always
    """Whether a model of this shape has it."""

    @property
    def is_per_expert(self) -> bool:
        """Whether the Megatron tensor holds one of these for each expert."""
        return "{expert}" in self.hf[0].name


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
        rules = [rule for rule in self.rules if rule.is_in(shape)]
        whole = [rule for rule in rules if "{layer}" not in rule.megatron]
        layered = [rule for rule in rules if "{layer}" in rule.megatron]
        mapped = [MappedTensor.of(rule, shape, layer=0) for rule in whole]
        for layer in range(shape.num_layers):
            for rule in layered:
                mapped += _of_layer(rule, shape, layer)
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
    """One Megatron tensor of one model, or one expert of it, with names and sizes filled in."""

    key: str
    """Key in the Megatron checkpoint."""
    size: Size
    """Size in the Megatron checkpoint, without padding of the vocabulary; of one expert."""
    hf_names: tuple[str, ...]
    hf_sizes: tuple[Size, ...]
    fusion: Fusion
    shape: ModelShape
    may_be_padded: bool
    """True when a training checkpoint may hold more rows (vocabulary padding) than `size`."""
    expert: int | None = None
    """Which expert of the Megatron tensor this is; None for a whole tensor."""

    @classmethod
    def of(
        cls, rule: TensorRule, shape: ModelShape, *, layer: int, expert: int | None = None
    ) -> "MappedTensor":
        """Fill in one layer of a rule, and one expert."""
        hf_sizes = tuple(_size_of(tensor.dims, shape) for tensor in rule.hf)
        return cls(
            key=rule.megatron.format(layer=layer),
            size=(sum(size[0] for size in hf_sizes), *hf_sizes[0][1:]),
            hf_names=tuple(tensor.name.format(layer=layer, expert=expert) for tensor in rule.hf),
            hf_sizes=hf_sizes,
            fusion=rule.fusion,
            shape=shape,
            may_be_padded=rule.hf[0].dims.startswith("V"),
            expert=expert,
        )

    @property
    def global_size(self) -> Size:
        """Size of the whole Megatron tensor, all experts included."""
        if self.expert is None:
            return self.size
        assert self.shape.experts is not None
        return (self.shape.experts.num_experts, *self.size)

    @property
    def offsets(self) -> Size:
        """Where in the whole Megatron tensor this one begins."""
        return (
            (0,) * len(self.size) if self.expert is None else (self.expert, *(0 for _ in self.size))
        )

    @property
    def lengths(self) -> Size:
        """How far it reaches from `offsets`."""
        return self.size if self.expert is None else (1, *self.size)

    def views(self, fused: "torch.Tensor") -> list["torch.Tensor"]:
        """Return views of the Megatron tensor for the parts, in the order of `hf_names`."""
        return self.fusion.views(fused, self.hf_sizes, self.shape)

    def fuse(self, parts: Sequence["torch.Tensor"]) -> "torch.Tensor":
        """Return the Megatron tensor; parts of different dtypes are promoted."""
        import torch

        dtype = functools.reduce(torch.promote_types, (part.dtype for part in parts))
        fused = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=dtype)
        for view, part in zip(self.views(fused), parts, strict=True):
            view.copy_(part.reshape(view.shape))
        return fused

    def split(self, fused: "torch.Tensor") -> list["torch.Tensor"]:
        """Return the Hugging Face tensors, in the order of `hf_names`; they may be views."""
        pairs = zip(self.views(fused), self.hf_sizes, strict=True)
        return [view.reshape(size) for view, size in pairs]

    def fits(self, size: Sequence[int]) -> bool:
        """Return whether a checkpoint's tensor of this size is the whole one, padded or not."""
        found, wanted = tuple(size), self.global_size
        if not self.may_be_padded:
            return found == wanted
        return len(found) > 0 and found[0] >= wanted[0] and found[1:] == wanted[1:]


def hf_tensors(mapped: Sequence[MappedTensor]) -> Iterator[tuple[str, Size]]:
    """Yield name and size of every Hugging Face tensor of the mapping."""
    for tensor in mapped:
        yield from zip(tensor.hf_names, tensor.hf_sizes, strict=True)


def _of_layer(rule: TensorRule, shape: ModelShape, layer: int) -> list[MappedTensor]:
    if not rule.is_per_expert:
        return [MappedTensor.of(rule, shape, layer=layer)]
    assert shape.experts is not None
    return [
        MappedTensor.of(rule, shape, layer=layer, expert=expert)
        for expert in range(shape.experts.num_experts)
    ]


def _size_of(dims: str, shape: ModelShape) -> Size:
    sizes = {
        "V": shape.vocab_size,
        "H": shape.hidden_size,
        "Q": shape.query_size,
        "K": shape.key_size,
        "D": shape.head_dim,
        "F": shape.ffn_hidden_size,
    }
    if shape.experts is not None:
        sizes |= {"E": shape.experts.num_experts, "X": shape.experts.ffn_hidden_size}
    return tuple(sizes[dim] for dim in dims)
