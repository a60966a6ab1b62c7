"""Weights that several ranks hold alike are compared after every load.

Ranks that went apart train on without an error and a normal-looking loss; the checkpoint then says
whichever copy was written.
"""

from collections.abc import Iterator, Sequence

import torch
from megatron.core.models.gpt.gpt_model import GPTModel

from megatron_msm.errors import CheckpointError
from megatron_msm.runtime.process_groups import ParallelRanks

_CHUNK = 1 << 22
# Odd, so that multiplication modulo 2^64 loses nothing (Knuth's MMIX multiplier).
_MULTIPLIER = 6364136223846793005


def check_replicas(chunks: Sequence[GPTModel], ranks: ParallelRanks) -> None:
    """Compare copies over data, context and tensor parallel ranks, and of tied embeddings.

    Called by all ranks alike.

    Raises:
        CheckpointError: Copies differ; raised on all ranks, naming a weight.
    """
    groups = ranks.groups
    named = [
        (f"{index}.{name}", parameter)
        for index, chunk in enumerate(chunks)
        for name, parameter in chunk.named_parameters()
    ]
    is_dense = [(n, p) for n, p in named if getattr(p, "allreduce", True)]
    is_expert = [(n, p) for n, p in named if not getattr(p, "allreduce", True)]
    is_same_on_tp = [(n, p) for n, p in is_dense if not getattr(p, "tensor_model_parallel", False)]
    found_here = [
        *differing(is_dense, groups.dp_cp),
        *differing(is_expert, getattr(groups, "expt_dp", None)),
        *differing(is_same_on_tp, groups.tp),
        *differing(list(_tied_embedding(chunks)), groups.embd),
    ]
    found: list[list[str]] = [[]] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, found_here)
    names = {name: rank for rank, part in reversed(list(enumerate(found))) for name in part}
    if names:
        listed = ", ".join(f"{name} (rank {rank})" for name, rank in list(names.items())[:5])
        raise CheckpointError(
            f"after loading, {len(names)} weights differ between ranks that hold the same: "
            f"{listed}. Training on would mix two models. Load again; if it stays, the checkpoint "
            "or a node's memory is broken."
        )


def _tied_embedding(chunks: Sequence[GPTModel]) -> Iterator[tuple[str, torch.Tensor]]:
    for chunk in chunks:
        if chunk.share_embeddings_and_output_weights and (chunk.pre_process or chunk.post_process):
            yield "embedding and output layer", chunk.shared_embedding_or_output_weight()
            return


def differing(
    named: Sequence[tuple[str, torch.Tensor]], group: torch.distributed.ProcessGroup | None
) -> list[str]:
    """Return the names whose checksums are not the same on all ranks of the group.

    Args:
        named: The same names in the same order on all of them.
        group: The ranks; None or one rank have nothing to compare.
    """
    if not named or group is None or torch.distributed.get_world_size(group) == 1:
        return []
    sums = torch.stack([checksum(parameter.detach()) for _, parameter in named])
    lowest, highest = sums.clone(), sums.clone()
    torch.distributed.all_reduce(lowest, op=torch.distributed.ReduceOp.MIN, group=group)
    torch.distributed.all_reduce(highest, op=torch.distributed.ReduceOp.MAX, group=group)
    is_different = (lowest != highest).tolist()
    return [name for (name, _), differs in zip(named, is_different, strict=True) if differs]


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Return an int64 scalar of a tensor's bytes and their indices."""
    if type(tensor).__module__.startswith("transformer_engine"):
        tensor = tensor.dequantize()  # FP8 weights
    words = tensor.contiguous().view(-1).view(torch.int16)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(words), _CHUNK):
        part = words[start : start + _CHUNK].to(torch.int64)
        index = torch.arange(start, start + len(part), device=tensor.device) * 2 + 1
        total += (part * index * _MULTIPLIER).sum()
    return total
