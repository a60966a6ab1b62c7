"""Micro batches: packed sequences laid end to end with their document boundaries.

Legend: T tokens of the micro batch = micro batch size x sequence length, divided by the context
parallel size. megatron-core's packed ("thd") format has a batch dimension of 1, so shapes are
[1, T].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from megatron.core.packed_seq_params import PackedSeqParams

from megatron_msm.data.loss_groups import LossGroups
from megatron_msm.data.order import PackOrder
from megatron_msm.data.packed_dataset import Pack, PackedDataset, empty_pack
from megatron_msm.models.layers.context import ContextShare

WHOLE = ContextShare(rank=0, size=1)


@dataclass(frozen=True)
class GroupIds:
    """Which parts of the data the positions of a micro batch belong to, to tell their losses."""

    ids_FT: torch.Tensor
    """int64; a row for each way to divide the data (F)."""
    num_groups: int
    """Ids are below."""


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass of one data parallel rank reads."""

    tokens_1T: torch.Tensor
    """int64"""
    labels_1T: torch.Tensor
    """int64"""
    loss_mask_1T: torch.Tensor
    """bool; True where the label counts."""
    position_ids_1T: torch.Tensor
    """int64; restarts at every document."""
    packed_seq_params: PackedSeqParams
    """Document boundaries, needed by every pipeline stage."""
    groups: GroupIds | None = None


def collate(
    packs: Sequence[Pack],
    device: torch.device,
    context: ContextShare = WHOLE,
    group_ids: Sequence[np.ndarray] = (),
    num_groups: int = 0,
) -> MicroBatch:
    """Lay packed sequences end to end, take this rank's share and move it to the device.

    The boundaries stay those of the whole documents, as Transformer Engine wants them.
    """
    lengths = np.concatenate([pack.segment_lengths for pack in packs])
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    cu_seqlens = torch.from_numpy(np.append(starts, lengths.sum()).astype(np.int32)).to(device)
    longest = int(lengths.max())
    mine = context.positions(lengths)

    def row(arrays: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays)[mine]).unsqueeze(0).to(device)

    groups = None
    if group_ids:
        ids_FT = np.concatenate(group_ids, axis=1)[:, mine].astype(np.int64)
        groups = GroupIds(torch.from_numpy(ids_FT).to(device), num_groups)
    return MicroBatch(
        groups=groups,
        tokens_1T=row([pack.tokens for pack in packs]),
        labels_1T=row([pack.labels for pack in packs]),
        loss_mask_1T=row([pack.loss_mask for pack in packs]),
        position_ids_1T=row([positions]),
        packed_seq_params=PackedSeqParams(
            qkv_format="thd",
            cu_seqlens_q=cu_seqlens,
            cu_seqlens_kv=cu_seqlens,
            # Transformer Engine's context parallelism asks for the padded boundaries too. Documents
            # own their padding, so they are the same; elsewhere it would compare them (a sync).
            cu_seqlens_q_padded=cu_seqlens if context.size > 1 else None,
            cu_seqlens_kv_padded=cu_seqlens if context.size > 1 else None,
            max_seqlen_q=longest,
            max_seqlen_kv=longest,
        ),
    )


def micro_batches_of_step(
    dataset: PackedDataset,
    order: PackOrder,
    *,
    step: int,
    global_batch_size: int,
    micro_batch_size: int,
    data_rank: int,
    data_size: int,
    device: torch.device,
    context: ContextShare = WHOLE,
    groups: LossGroups | None = None,
) -> Iterator[MicroBatch]:
    """Yield this data parallel rank's micro batches of optimizer step `step` (counted from 0).

    The global batch is cut into micro batches, which are assigned to the data parallel
    ranks in turn.
    """
    first = step * global_batch_size
    stride = micro_batch_size * data_size
    for begin in range(first + data_rank * micro_batch_size, first + global_batch_size, stride):
        indices = [order[position] for position in range(begin, begin + micro_batch_size)]
        packs = [
            empty_pack(dataset.seq_length) if index is None else dataset[index] for index in indices
        ]
        ids = [] if groups is None else [groups.of_pack(index) for index in indices]
        yield collate(packs, device, context, ids, 0 if groups is None else len(groups.names))
