"""LoRA on megatron-core's parallel linear layers, its own and Transformer Engine's.

`add_adapters` puts a subclass in the place of each target's class in the layer spec. The subclass
has two more parameters and adds `scale * x A^T B^T` to the layer's output; names and keys of the
frozen weights stay as they are. How the two are split over tensor parallel ranks:

    column (linear_qkv, linear_fc1)   A on every rank, B by rows as the weight is
    row (linear_proj, linear_fc2)     A by columns as the weight is, B on every rank

What crosses ranks has the adapter's rank as its width, not the model's. Under sequence parallelism
the unsplit matrix sees each rank's tokens only; its gradient is added up with those of the norms
(`sequence_parallel`, distributed/finalize_model_grads.py).

Legend: s tokens of this rank, P fused projections, r rank, i inputs, o outputs of this rank.
"""

import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch.nn.functional import linear

from megatron_msm.config.lora import LoraConfig, LoraTarget
from megatron_msm.models.layers.freezing import keep_gradients_through_recomputation
from megatron_msm.models.sizes.adapter_sizes import LORA_A, LORA_B
from megatron_msm.runtime.megatron_versions import submodules_of

_ROW_PARALLEL: frozenset[LoraTarget] = frozenset({"linear_proj", "linear_fc2"})


class LoraLinear(torch.nn.Module):
    """Mixin: put before a parallel linear class, it adds an adapter to it."""

    target: ClassVar[LoraTarget]
    lora: ClassVar[LoraConfig]
    lora_a: torch.nn.Parameter
    lora_b: torch.nn.Parameter

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        config: TransformerConfig,
        tp_group: torch.distributed.ProcessGroup,
        **settings: object,
    ) -> None:
        super().__init__(input_size, output_size, config=config, tp_group=tp_group, **settings)
        self._tp = tp_group
        self._scale = self.lora.record.scale
        self._is_row = self.target in _ROW_PARALLEL
        self._splits_tokens = config.sequence_parallel and tp_group.size() > 1
        inputs = input_size // tp_group.size() if self._is_row else input_size
        outputs = output_size if self._is_row else output_size // tp_group.size()
        self._blocks = _blocks(self.target, config, outputs)
        rank = self.lora.rank
        weight: torch.Tensor = self.weight  # type: ignore[assignment]
        empty = functools.partial(torch.empty, dtype=config.params_dtype, device=weight.device)
        self.lora_a = torch.nn.Parameter(empty(len(self._blocks) * rank, inputs))
        self.lora_b = torch.nn.Parameter(empty(outputs, rank))
        split, whole = (self.lora_a, self.lora_b) if self._is_row else (self.lora_b, self.lora_a)
        # The gradient norm counts a whole matrix on one rank only, a split one on each
        # (tensor_parallel/layers.py, param_is_not_tensor_parallel_duplicate).
        set_tensor_model_parallel_attributes(split, True, 1 if self._is_row else 0, 1)
        whole.sequence_parallel = self._splits_tokens  # type: ignore[attr-defined]
        if hasattr(self, "return_layernorm_output"):
            # Transformer Engine's layer with the norm inside: the adapter reads the norm's output.
            self.return_layernorm_output = True

    def forward(
        self, x: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the layer's output [..., o] with the adapter's added, and its bias."""
        output, bias, normed = _unpack(super().forward(x, *args, **kwargs))
        return output + self._adapter(x if normed is None else normed), bias

    def _adapter(self, x_si: torch.Tensor) -> torch.Tensor:
        inner = linear(x_si, self.lora_a) * self._scale
        if self._is_row and self._splits_tokens:
            inner = reduce_scatter_to_sequence_parallel_region(inner, group=self._tp)
        elif self._is_row:
            inner = reduce_from_tensor_model_parallel_region(inner, group=self._tp)
        elif self._splits_tokens:
            inner = gather_from_sequence_parallel_region(inner, group=self._tp)
        else:
            inner = copy_to_tensor_model_parallel_region(inner, group=self._tp)
        if len(self._blocks) == 1:
            return linear(inner, self.lora_b)
        groups = self.lora_b.unflatten(0, (-1, sum(self._blocks))).split(self._blocks, dim=1)
        parts = [
            linear(part, rows.flatten(0, 1)).unflatten(-1, (rows.shape[0], -1))
            for part, rows in zip(inner.chunk(len(self._blocks), dim=-1), groups, strict=True)
        ]
        return torch.cat(parts, dim=-1).flatten(-2)

    def initialize(self, key: str, seed: int) -> None:
        """Give A the values that PEFT's default draws from, and B zeros.

        A is drawn whole on every rank, from a generator of its own, so it does not depend on the
        layout.

        Args:
            key: Names the layer in the whole model.
            seed: The run's seed.

        Source: peft, tuners/lora/layer.py `reset_lora_parameters`: kaiming uniform with a = sqrt(5)
        is uniform within 1 / sqrt(inputs).
        """
        digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        rows, columns = self.lora_a.shape
        size = self._tp.size() if self._is_row else 1
        bound = 1 / math.sqrt(columns * size)
        whole = torch.empty(rows, columns * size).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            self.lora_a.copy_(whole.chunk(size, dim=1)[self._tp.rank() if self._is_row else 0])
            self.lora_b.zero_()

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: Sequence[tuple[int, int, int]] = (),
        metadata: dict[str, object] | None = None,
    ) -> ShardedStateDict:
        """Describe the shards: the layer's own, and the adapter's."""
        assert metadata is not None
        state = super().sharded_state_dict(prefix, sharded_offsets, metadata)  # type: ignore[misc]
        adapter = make_sharded_tensors_for_checkpoint(
            {LORA_A: self.lora_a, LORA_B: self.lora_b},
            prefix,
            {LORA_A: 1} if self._is_row else {LORA_B: 0},
            sharded_offsets,
            tp_group=self._tp,
            dp_cp_group=metadata["dp_cp_group"],
        )
        if self.target == "linear_fc1":
            key = prefix + LORA_B
            adapter[key] = apply_swiglu_sharded_factory(
                adapter[key], sharded_offsets, metadata.get("singleton_local_shards", False)
            )
        return {**state, **adapter}


def _blocks(target: LoraTarget, config: TransformerConfig, outputs: int) -> tuple[int, ...]:
    """Return the rows of each fused projection, of a pattern that repeats."""
    if target == "linear_qkv":
        heads = config.num_attention_heads // config.num_query_groups
        return heads * config.kv_channels, config.kv_channels, config.kv_channels
    if target == "linear_fc1":
        return outputs // 2, outputs // 2
    return (outputs,)


def _unpack(
    returned: tuple[Any, ...],
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Take output, bias and norm output from what a layer returns.

    Source: megatron-core 0.16.1, extensions/transformer_engine.py, TELayerNormColumnParallelLinear:
    (output, bias), ((output, normed), None), or (output, bias, normed) when it returns its bias.
    """
    if len(returned) == 3:
        return returned[0], returned[1], returned[2]
    output, bias = returned
    if isinstance(output, tuple):
        return output[0], bias, output[1]
    return output, bias, None


def add_adapters(spec: ModuleSpec, lora: LoraConfig) -> None:
    """Put the class with an adapter in the place of each target's in a layer spec."""
    for target in lora.targets:
        block = "self_attention" if target in ("linear_qkv", "linear_proj") else "mlp"
        submodules = submodules_of(getattr(spec.submodules, block))
        base = getattr(submodules, target)
        name = f"Lora{base.__name__}"
        adapted = type(name, (LoraLinear, base), {"target": target, "lora": lora})
        setattr(submodules, target, adapted)


def is_adapter(name: str) -> bool:
    """Return whether a parameter or checkpoint key is an adapter's."""
    return name.rpartition(".")[2] in (LORA_A, LORA_B)


def freeze_base(model: GPTModel) -> None:
    """Leave gradients to the adapters alone."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
    keep_gradients_through_recomputation(model)


def initialize_adapters(model: GPTModel, seed: int) -> None:
    """Initialise every adapter of this rank, as any other layout would."""
    for layer in model.decoder.layers:
        for name, module in layer.named_modules():
            if isinstance(module, LoraLinear):
                module.initialize(f"{layer.layer_number - 1}.{name}", seed)
