"""A part of a model that computes what the whole would, but for depth: few layers, few words.

A layer of a large model says as much about how its config was read as all of them, in a fraction of
the memory. Rows of the vocabulary that no token of the check has are left out on both sides.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from megatron_msm.models.families.registry import table_for
from megatron_msm.models.shape import LayerAttention, ModelShape
from megatron_msm.models.tensor_table import MappedTensor

_LAYER = re.compile(r"\.layers\.(\d+)\.")
TensorName = tuple[str, int | None]
"""Megatron's key, and which expert of it."""


class TensorReader(Protocol):
    """Where Megatron's tensors come from: an import's source or a checkpoint; can be pickled."""

    def dtype_of(self, tensor: MappedTensor) -> torch.dtype:
        """Return a dtype that holds the tensor exactly."""
        ...

    def read_into(self, tensor: MappedTensor, target: torch.Tensor) -> None:
        """Read one tensor as Megatron has it into one of its size."""
        ...


@dataclass(frozen=True)
class ModelSlice:
    """Which part of a model is computed."""

    whole: ModelShape
    layers: tuple[int, ...]
    """Layers of the whole, in the order in which the part has them."""
    tokens: tuple[int, ...]
    """Rows of the vocabulary, in the order in which the part has them."""

    @property
    def shape(self) -> ModelShape:
        """Shape of the part."""
        return self.whole.of_part(self.layers, vocab_size=len(self.tokens))

    @cached_property
    def _pairs(self) -> list[tuple[MappedTensor, MappedTensor]]:
        """Return each tensor of the part with the one of the whole that it is taken from."""
        whole = {
            (tensor.key, tensor.expert): tensor
            for tensor in table_for(self.whole).expand(self.whole)
        }
        part = table_for(self.whole).expand(self.shape)
        return [(tensor, whole[self._name_in_whole(tensor.key), tensor.expert]) for tensor in part]

    def _name_in_whole(self, name: str) -> str:
        return _LAYER.sub(lambda found: f".layers.{self.layers[int(found[1])]}.", name)

    def read(self, reader: TensorReader) -> dict[TensorName, torch.Tensor]:
        """Read the part's tensors as Megatron has them, by their keys in the part."""
        return {
            (tensor.key, tensor.expert): self._read(reader, tensor, whole)
            for tensor, whole in self._pairs
        }

    def read_apart(self, reader: TensorReader) -> dict[str, torch.Tensor]:
        """Read the same tensors, taken apart into those of Hugging Face."""
        found: dict[str, torch.Tensor] = {}
        for tensor, whole in self._pairs:
            parts = tensor.split(self._read(reader, tensor, whole))
            found |= {
                name: part.contiguous() for name, part in zip(tensor.hf_names, parts, strict=True)
            }
        return found

    def read_hf(self, read: Callable[[str], torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Read the part's tensors from a Hugging Face folder, by their names in the part."""
        found: dict[str, torch.Tensor] = {}
        for tensor, whole in self._pairs:
            for name, name_in_whole in zip(tensor.hf_names, whole.hf_names, strict=True):
                found[name] = self._rows(tensor, read(name_in_whole))
        return found

    def _read(
        self, reader: TensorReader, tensor: MappedTensor, whole: MappedTensor
    ) -> torch.Tensor:
        content = torch.empty(whole.size, dtype=reader.dtype_of(whole))
        reader.read_into(whole, content)
        return self._rows(tensor, content)

    def _rows(self, tensor: MappedTensor, content: torch.Tensor) -> torch.Tensor:
        return content[list(self.tokens)] if tensor.may_be_padded else content


def outer_layers(shape: ModelShape) -> tuple[int, ...]:
    """Return the first and the last layer, and the first of each further kind of attention."""
    firsts: dict[LayerAttention, int] = {}
    for layer in range(shape.num_layers):
        firsts.setdefault(shape.attention_of(layer), layer)
    return tuple(sorted({0, shape.num_layers - 1, *firsts.values()}))
