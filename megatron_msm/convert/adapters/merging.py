"""A checkpoint with LoRA adapters, read as the model that they make of it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.formats.checkpoint_folder import AdapterRecord
from megatron_msm.models.adapter_table import MappedAdapter, mapped_adapters
from megatron_msm.models.tensor_table import MappedTensor


class MergedCheckpoint(MegatronCheckpoint):
    """Adds the scaled product B A to each weight that has an adapter.

    Computed in float32 and rounded once, to the weight's dtype, in the order of PEFT's
    `merge_and_unload`, whose weights these are bit for bit.
    """

    def __init__(
        self, folder: Path, adapter: AdapterRecord, adapters: Sequence[MappedAdapter]
    ) -> None:
        """Open an iteration folder.

        Raises:
            CheckpointError: Its metadata is missing, damaged, or not to be trusted.
        """
        super().__init__(folder)
        self._scale = adapter.scale
        self._adapters = {one.weight.key: one for one in adapters}

    def read_mapped(self, tensor: MappedTensor, target: torch.Tensor) -> None:
        """Read one tensor of the model's table, its adapter merged."""
        super().read_mapped(tensor, target)
        adapter = self._adapters.get(tensor.key)
        if adapter is None:
            return
        parts_a, parts_b = (self.read_parts(matrix) for matrix in (adapter.a, adapter.b))
        changes = [b.float() @ a.float() for a, b in zip(parts_a, parts_b, strict=True)]
        change = tensor.fuse([part.mul_(self._scale) for part in changes])
        target.copy_(target + change)


def open_checkpoint(
    folder: Path, mapped: Sequence[MappedTensor], adapter: AdapterRecord | None
) -> tuple[MegatronCheckpoint, tuple[MappedAdapter, ...]]:
    """Open a checkpoint, merged when it has adapters; return these, too."""
    if adapter is None:
        return MegatronCheckpoint(folder), ()
    adapters = mapped_adapters(mapped, adapter)
    return MergedCheckpoint(folder, adapter, adapters), adapters
