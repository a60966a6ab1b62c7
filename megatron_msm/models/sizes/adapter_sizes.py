"""Sizes of LoRA adapters, by arithmetic. No torch.

A projection of Megatron may be several of Hugging Face fused: q, k and v, or gate and up. Each has
an adapter of its own, as in PEFT, so that adapters can be exchanged:

    lora_a  [parts x rank, inputs]   one block of rows for each fused projection, in order
    lora_b  [outputs, rank]          rows fused as the weight's rows are; each belongs to one part
"""

from collections.abc import Mapping
from dataclasses import dataclass

from megatron_msm.config.lora import LoraConfig, LoraTarget
from megatron_msm.models.shape import ModelShape

LORA_A = "lora_a"
LORA_B = "lora_b"


@dataclass(frozen=True)
class Projection:
    """A projection that can have an adapter."""

    inputs: int
    outputs: tuple[int, ...]
    """Rows of each Hugging Face projection that is fused into it."""

    def num_parameters(self, rank: int) -> int:
        """Return the weights of its adapter."""
        return rank * (len(self.outputs) * self.inputs + sum(self.outputs))


def projections(shape: ModelShape) -> Mapping[LoraTarget, Projection]:
    """Return what each target is in one layer of the model; experts have none."""
    query, key = shape.query_size, shape.key_size
    hidden, ffn = shape.hidden_size, shape.ffn_hidden_size
    attention: dict[LoraTarget, Projection] = {
        "linear_qkv": Projection(hidden, (query, key, key)),
        "linear_proj": Projection(query, (hidden,)),
    }
    if shape.experts is not None:
        return attention
    return {
        **attention,
        "linear_fc1": Projection(hidden, (ffn, ffn)),
        "linear_fc2": Projection(ffn, (hidden,)),
    }


def num_adapter_parameters(shape: ModelShape, lora: LoraConfig) -> int:
    """Return the trainable weights of the whole model."""
    known = projections(shape)
    return shape.num_layers * sum(
        known[target].num_parameters(lora.rank) for target in lora.targets
    )
