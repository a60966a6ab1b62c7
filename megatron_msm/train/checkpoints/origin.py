"""Agreeing on the checkpoint to load: every rank verifies a share of its files.

A damaged one is passed over, saying so, and the one before it is taken by all ranks alike.
"""

import logging
from pathlib import Path

import torch

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import verify_checkpoint_hashes
from megatron_msm.train.checkpoints.resume import PhaseStart, SavedCheckpoint, next_phase
from megatron_msm.train.hf_base import verify_source
from megatron_msm.train.resolved_run import ResolvedRun

log = logging.getLogger(__name__)


def verified_start(run: ResolvedRun) -> PhaseStart | None:
    """Return the first phase that is not finished, with an origin whose content is verified.

    Called by all ranks alike.

    Raises:
        CheckpointError: The base model is damaged.
        ConfigError: A checkpoint is of another run.
    """
    damaged: dict[Path, str] = {}
    while (start := next_phase(run, damaged)) is not None:
        is_base = start.origin.folder == run.base.folder
        problem = _verify_together(start.origin, run.config.model.hf if is_base else None)
        if problem is None:
            if torch.distributed.get_rank() == 0:
                for text in (*start.passed_over, *damaged.values()):
                    log.warning("%s The one before it is used.", text)
            return start
        if is_base:
            raise CheckpointError(problem)
        damaged[start.origin.folder] = problem
    return None


def verify_origin(saved: SavedCheckpoint) -> None:
    """Verify a checkpoint's content, on all ranks alike.

    Raises:
        CheckpointError: It is damaged.
    """
    problem = _verify_together(saved)
    if problem is not None:
        raise CheckpointError(problem)


def _verify_together(saved: SavedCheckpoint, hf_folder: Path | None = None) -> str | None:
    """Return what is wrong with the checkpoint, the same on all ranks, or None.

    Args:
        saved: The checkpoint.
        hf_folder: Has its weights, when it has none itself.
    """
    problem: str | None = None
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    try:
        verify_checkpoint_hashes(saved.folder, saved.state, part=rank, num_parts=size)
        if hf_folder is not None:
            verify_source(hf_folder, saved.state, part=rank, num_parts=size)
    except (CheckpointError, OSError) as error:
        problem = str(error)
    found: list[str | None] = [None] * size
    torch.distributed.all_gather_object(found, problem)
    return next((text for text in found if text is not None), None)
