"""The tensors of LoRA adapters, as more entries of the model's own table. No torch.

    decoder.layers.3.self_attention.linear_qkv.lora_a <- ...layers.3.self_attn.q_proj.lora_A.weight,
                                                         ...k_proj..., ...v_proj..., stacked
    decoder.layers.3.self_attention.linear_qkv.lora_b <- the three lora_B, fused as the weights are

So adapters are converted, checked and read by what does it for weights. The names on the right are
PEFT's (peft 0.21, utils/save_and_load.py: no adapter name in the file).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_msm.formats.checkpoint_folder import AdapterRecord
from megatron_msm.models.sizes.adapter_sizes import LORA_A, LORA_B
from megatron_msm.models.tensor_table import MappedTensor, Size, StackedRows

_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class MappedAdapter:
    """The two matrices beside one weight."""

    weight: MappedTensor
    a: MappedTensor
    b: MappedTensor

    @property
    def tensors(self) -> tuple[MappedTensor, MappedTensor]:
        """Both matrices."""
        return self.a, self.b

    @property
    def projections(self) -> tuple[str, ...]:
        """Hugging Face's names of the projections, as PEFT's `target_modules` lists them."""
        return tuple(name.split(".")[-2] for name in self.weight.hf_names)


def mapped_adapters(
    mapped: Sequence[MappedTensor], adapter: AdapterRecord
) -> tuple[MappedAdapter, ...]:
    """Return the adapters of a model, in the order of its tensors."""
    suffixes = tuple(f".{target}.weight" for target in adapter.targets)
    return tuple(
        _adapter_of(tensor, adapter.rank) for tensor in mapped if tensor.key.endswith(suffixes)
    )


def _adapter_of(weight: MappedTensor, rank: int) -> MappedAdapter:
    stem = weight.key.removesuffix("weight")
    sizes_a = tuple((rank, size[1]) for size in weight.hf_sizes)
    sizes_b = tuple((size[0], rank) for size in weight.hf_sizes)
    names = [_PEFT_PREFIX + name.removesuffix(".weight") for name in weight.hf_names]

    def matrix(key: str, part: str, sizes: tuple[Size, ...], *, is_a: bool) -> MappedTensor:
        return MappedTensor(
            key=stem + key,
            size=(sum(size[0] for size in sizes), sizes[0][1]),
            hf_names=tuple(f"{name}.{part}.weight" for name in names),
            hf_sizes=sizes,
            fusion=StackedRows() if is_a else weight.fusion,
            shape=weight.shape,
            may_be_padded=False,
        )

    return MappedAdapter(
        weight,
        a=matrix(LORA_A, "lora_A", sizes_a, is_a=True),
        b=matrix(LORA_B, "lora_B", sizes_b, is_a=False),
    )
