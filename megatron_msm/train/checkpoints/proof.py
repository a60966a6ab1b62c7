"""Proving a save: what the ranks hold fits together, and the files give it back.

    before    weights are the rounded main weights; copies on several ranks are alike, moments too
    after     weights, main weights, moments and step counts loaded from the files are bit for bit
              those that were saved

The files are loaded by what a resume calls, into the model and optimizer that train on. Called by
all ranks alike.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import MegatronOptimizer

from megatron_msm.errors import CheckpointError
from megatron_msm.runtime.optimizer_state import (
    MAIN_WEIGHT,
    StateShard,
    state_shards,
    step_counts,
)
from megatron_msm.runtime.process_groups import ParallelRanks
from megatron_msm.train.checkpoints.checkpoint import load_checkpoint
from megatron_msm.train.checkpoints.fp8_weights import is_fp8
from megatron_msm.train.checkpoints.replicas import check_replicas, checksum, differing


def prove_state(
    chunks: Sequence[GPTModel], optimizer: MegatronOptimizer, ranks: ParallelRanks
) -> None:
    """Prove that what is about to be saved fits together.

    Raises:
        CheckpointError: It does not; raised on all ranks, naming a weight.
    """
    check_replicas(chunks, ranks)
    names = _names(chunks)
    shards = list(state_shards(optimizer))
    _raise_together(
        [names[id(shard.weight)] for shard in shards if not _is_rounded_main_weight(shard)],
        "are not the optimizer's main weights, rounded",
    )
    # Over data parallel ranks nothing of the optimizer is there twice; over tensor parallel ranks
    # it is, of weights that are not split over them.
    alike = [
        (f"{names[id(shard.weight)]} {name}", tensor)
        for shard in shards
        if not getattr(shard.weight, "tensor_model_parallel", False)
        for name, tensor in shard.tensors.items()
    ]
    _raise_together(differing(alike, ranks.groups.tp), "differ between tensor parallel ranks")


def prove_saved(
    folder: Path, chunks: Sequence[GPTModel], optimizer: MegatronOptimizer | None
) -> None:
    """Prove that a checkpoint's files give back what was saved.

    Args:
        folder: The complete iteration.
        chunks: This rank's model chunks, unchanged since.
        optimizer: Left out when it was not saved.

    Raises:
        CheckpointError: They do not; raised on all ranks. What the ranks hold is lost then.
    """
    names, before = _names(chunks), _checksums(chunks, optimizer)
    _overwrite(chunks, optimizer)
    load_checkpoint(folder, chunks, optimizer)
    after = _checksums(chunks, optimizer)
    wrong = [
        f"{names.get(weight, 'optimizer')} {what}"
        for weight, what in before
        if before[weight, what] != after.get((weight, what))
    ]
    _raise_together(wrong, f"loaded from {folder} are not those that were saved")


def _checksums(
    chunks: Sequence[GPTModel], optimizer: MegatronOptimizer | None
) -> dict[tuple[int, str], int | list[int | torch.Tensor | None]]:
    """Return a checksum of every tensor by weight and kind; 8 bytes each instead of a copy."""
    found: dict[tuple[int, str], int | list[int | torch.Tensor | None]] = {
        (id(weight), "weight"): int(checksum(weight.detach()))
        for chunk in chunks
        for weight in chunk.parameters()
    }
    if optimizer is not None:
        found[0, "steps"] = step_counts(optimizer)
        for shard in state_shards(optimizer):
            for name, tensor in shard.tensors.items():
                found[id(shard.weight), name] = int(checksum(tensor.detach()))
    return found


@torch.no_grad()
def _overwrite(chunks: Sequence[GPTModel], optimizer: MegatronOptimizer | None) -> None:
    """Put NaN where a load has to write: what it leaves out must not look as if it were read."""
    for chunk in chunks:
        for weight in chunk.parameters():
            if not is_fp8(weight):
                weight.fill_(torch.nan)
    if optimizer is not None:
        for shard in state_shards(optimizer):
            for tensor in shard.tensors.values():
                tensor.fill_(torch.nan)


def _is_rounded_main_weight(shard: StateShard) -> bool:
    if is_fp8(shard.weight):
        return True  # scaled before they are rounded
    main = shard.tensors[MAIN_WEIGHT].detach().to(shard.weight)
    return torch.equal(main.view(-1), shard.part)


def _names(chunks: Sequence[GPTModel]) -> dict[int, str]:
    return {
        id(weight): f"{index}.{name}"
        for index, chunk in enumerate(chunks)
        for name, weight in chunk.named_parameters()
    }


def _raise_together(wrong: list[str], what: str) -> None:
    found: list[list[str]] = [[]] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, wrong)
    named = [f"{name} (rank {rank})" for rank, names in enumerate(found) for name in names]
    if named:
        raise CheckpointError(
            f"proving a save: {len(named)} tensors {what}: {', '.join(named[:5])}. Nothing of this "
            "run's newest step can be trusted; go on from an earlier checkpoint, and report this "
            "with the versions in its msm_state.json."
        )
