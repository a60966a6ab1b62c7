"""How the adapters of a checkpoint map to PEFT's, from the model's own table of tensors.

    decoder.layers.3.self_attention.linear_qkv.lora_a -> ...layers.3.self_attn.q_proj.lora_A.weight,
    decoder.layers.3.self_attention.linear_qkv.lora_b    ...q_proj.lora_B.weight, and of k and v

B's rows are fused as the weight's rows are, so they are taken apart by the weight's own rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from megatron_msm.formats.checkpoint_folder import AdapterRecord
from megatron_msm.models.adapter_sizes import LORA_A, LORA_B
from megatron_msm.models.tensor_table import MappedTensor, Size

_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterPair:
    """The two matrices beside one Hugging Face projection."""

    a: torch.Tensor
    """[rank, inputs]"""
    b: torch.Tensor
    """[outputs, rank]"""


@dataclass(frozen=True)
class MappedAdapter:
    """The adapter of one Megatron projection."""

    weight: MappedTensor
    rank: int

    @property
    def key_a(self) -> str:
        """Key of A in the Megatron checkpoint."""
        return self.weight.key.removesuffix("weight") + LORA_A

    @property
    def key_b(self) -> str:
        """Key of B in the Megatron checkpoint."""
        return self.weight.key.removesuffix("weight") + LORA_B

    @property
    def size_a(self) -> Size:
        """Size of A in the Megatron checkpoint."""
        return (len(self.weight.hf_names) * self.rank, self.weight.size[1])

    @property
    def size_b(self) -> Size:
        """Size of B in the Megatron checkpoint."""
        return (self.weight.size[0], self.rank)

    @property
    def peft_names(self) -> tuple[str, ...]:
        """PEFT's names of the projections, to which `.lora_A.weight` is added."""
        return tuple(_PEFT_PREFIX + name.removesuffix(".weight") for name in self.weight.hf_names)

    @property
    def projections(self) -> tuple[str, ...]:
        """The last part of each projection's name, as PEFT's `target_modules` lists them."""
        return tuple(name.split(".")[-2] for name in self.weight.hf_names)

    def split(self, a: torch.Tensor, b: torch.Tensor) -> list[AdapterPair]:
        """Return the pair of each Hugging Face projection."""
        sizes = [(size[0], self.rank) for size in self.weight.hf_sizes]
        parts = self.weight.fusion.split(b, sizes, self.weight.shape)
        return [AdapterPair(*pair) for pair in zip(a.split(self.rank), parts, strict=True)]

    def fuse(self, pairs: Sequence[AdapterPair]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return Megatron's A and B; `pairs` are in the order of `peft_names`."""
        b = self.weight.fusion.fuse([pair.b for pair in pairs], self.weight.shape)
        return torch.cat([pair.a for pair in pairs]), b


def mapped_adapters(
    mapped: Sequence[MappedTensor], adapter: AdapterRecord
) -> tuple[MappedAdapter, ...]:
    """Return the adapters of a model, in the order of its tensors."""
    suffixes = tuple(f".{target}.weight" for target in adapter.targets)
    return tuple(
        MappedAdapter(tensor, adapter.rank) for tensor in mapped if tensor.key.endswith(suffixes)
    )
