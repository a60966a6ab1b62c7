"""Saving and loading a phase's checkpoints through megatron-core's distributed checkpointing.

Every rank writes its shards into a temporary folder; rank 0 hashes the files, adds our own and
makes the folder visible (see formats/checkpoint_folder.py). Keys are per layer and global, so a
checkpoint loads under any layout.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint.api import CheckpointException

from megatron_msm.config.run import PhaseConfig
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    RUN_FILE,
    CheckpointState,
    iteration_folder,
    publish_checkpoint,
)
from megatron_msm.formats.files import tmp_path
from megatron_msm.models.lora import is_adapter
from megatron_msm.runtime import writer_results
from megatron_msm.runtime.safe_metadata import restricted_metadata_reading
from megatron_msm.train.resume import iteration_folders

# Optimizer state that loads under any layout: distrib_optimizer.py, sharded_state_dict. The default
# fails with "flattened_range is not supported" in megatron-core 0.16.1.
_CONTENT = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "non_homogeneous_layers": True,
}


def _chunk_name(index: int) -> str:
    return f"model{index}"


def _sharded_state(
    chunks: Sequence[Any], optimizer: MegatronOptimizer | None, *, is_loading: bool
) -> dict[str, Any]:
    """Describe this rank's shards: of its model chunks, and the optimizer's when it takes part."""
    # Names in this dictionary are local to the rank: a chunk counts its layers from 0. The keys of
    # the shards inside are global.
    state = {_chunk_name(index): _model_state(chunk) for index, chunk in enumerate(chunks)}
    if optimizer is not None:
        state["optimizer"] = optimizer.sharded_state_dict(
            dict(state), is_loading=is_loading, metadata=dict(_CONTENT)
        )
    return state


def _model_state(chunk: Any) -> dict[str, Any]:
    # A copy each time: megatron-core leaves process groups in it (transformer/utils.py:205).
    return {
        key: value
        for key, value in chunk.sharded_state_dict(metadata=dict(_CONTENT)).items()
        # Transformer Engine's scaling history: pickled, so not to be loaded from a file that may
        # come from anywhere. Empty but under FP8 with delayed scaling, where it starts anew.
        if not key.endswith("_extra_state")
    }


def save_checkpoint(
    root: Path,
    chunks: Sequence[Any],
    optimizer: MegatronOptimizer | None,
    state: CheckpointState,
    *,
    hf_folder: Path,
    run_yaml: str,
) -> None:
    """Write one checkpoint; called by every rank at the same step.

    Args:
        root: The phase's checkpoint folder.
        chunks: This rank's model chunks, GPTModels.
        optimizer: Left out when the phase is complete: nothing resumes inside it.
        state: What to record; rank 0's is written.
        hf_folder: The small Hugging Face files to carry along.
        run_yaml: The resolved configuration.
    """
    is_writer = torch.distributed.get_rank() == 0
    tmp = tmp_path(iteration_folder(root, state.iteration))
    if is_writer:
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir(parents=True)
    torch.distributed.barrier()
    writer_results.use_for_next_save()
    dist_checkpointing.save(
        _sharded_state(chunks, optimizer, is_loading=False),
        str(tmp),
        sharded_strategy=TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1),
        content_metadata=dict(_CONTENT),
    )
    torch.distributed.barrier()
    if is_writer:
        shutil.copytree(hf_folder, tmp / HF_FOLDER)
        (tmp / RUN_FILE).write_text(run_yaml)
        publish_checkpoint(tmp, root, state)
    torch.distributed.barrier()


def load_checkpoint(
    folder: Path,
    chunks: Sequence[Any],
    optimizer: MegatronOptimizer | None,
    *,
    with_adapters: bool = True,
) -> dict[str, dict[str, torch.Tensor]]:
    """Load an iteration folder into this rank's model chunks, and optimizer when given.

    Args:
        folder: A complete iteration.
        chunks: This rank's model chunks, GPTModels.
        optimizer: Left out when a phase begins.
        with_adapters: False when the model's LoRA adapters are new and the checkpoint has none.

    Returns:
        The tensors of each chunk as they were read, in the form that the optimizer's
        `reload_model_params` takes.

    Raises:
        CheckpointError: A tensor is missing or has another shape.
    """
    wanted = _sharded_state(chunks, optimizer, is_loading=True)
    kept: dict[str, dict[str, Any]] = {}
    for index, chunk in enumerate(chunks):
        name = _chunk_name(index)
        kept[name] = {}
        if not with_adapters:
            kept[name] = {k: v for k, v in chunk.state_dict().items() if is_adapter(k)}
            wanted[name] = {k: v for k, v in wanted[name].items() if not is_adapter(k)}
    with restricted_metadata_reading():
        try:
            loaded = dist_checkpointing.load(wanted, str(folder))
        except (CheckpointException, KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{folder}: cannot be loaded into this model: {error}") from error
    states = {name: {**loaded[name], **kept[name]} for name in kept}
    for index, chunk in enumerate(chunks):
        _load_chunk(chunk, states[_chunk_name(index)])
    if optimizer is not None:
        optimizer.load_state_dict(loaded["optimizer"])
    return states


def _load_chunk(chunk: Any, state: dict[str, Any]) -> None:
    """Copy a checkpoint's tensors into a model chunk; every weight must be among them."""
    result = chunk.load_state_dict(state, strict=False)
    # Transformer Engine's layers ask for what `_model_state` leaves out.
    missing = [name for name in result.missing_keys if not name.endswith("_extra_state")]
    assert not missing, missing
    assert not result.unexpected_keys, result.unexpected_keys


def remove_old_checkpoints(root: Path, phase: PhaseConfig) -> None:
    """Remove all but the newest `keep_last` iterations; called by rank 0 after a save."""
    for folder in iteration_folders(root)[: -phase.checkpoint.keep_last]:
        shutil.rmtree(folder)
