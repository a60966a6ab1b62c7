"""The model that a run starts from: found while planning, made by a step of its own. No torch.

A Megatron checkpoint is there already. A Hugging Face folder gets OUT/_base/ to stand for its
checkpoint (hf_base.py); until that is made, all is known but the hashes of its weights.
"""

from dataclasses import dataclass
from pathlib import Path

from megatron_msm.config.run import RunConfig
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    CheckpointState,
    read_checkpoint_state,
    resolve_checkpoint,
)


@dataclass(frozen=True)
class Base:
    """The model that a run starts from."""

    folder: Path
    """Its checkpoint, or what stands for one."""
    hf_folder: Path
    """Its small Hugging Face files: config, tokenizer, chat template."""
    state: CheckpointState
    is_made: bool = True
    """False when `folder` is not there yet; lineage and identity of `state` are not known then."""


def find_base(config: RunConfig) -> Base:
    """Return the base of a run as it is on disk; writes nothing and hashes no weights.

    Raises:
        CheckpointError: The checkpoint or Hugging Face folder is incomplete, damaged or of an
            unsupported model.
    """
    if config.model.hf is None:
        return _checkpoint_base(resolve_checkpoint(config.model.source))
    # Imported here: it brings torch.
    from megatron_msm.train.hf_base import base_folder, forecast, is_current

    hf_folder, folder = config.model.hf, base_folder(config.out)
    if is_current(folder, hf_folder):
        return _checkpoint_base(folder)
    return Base(folder, hf_folder, forecast(hf_folder), is_made=False)


def make_base(config: RunConfig) -> Base:
    """Return the base of a run, made where it is not there yet: by rank 0, the others wait.

    Raises:
        CheckpointError: As `find_base`, or rank 0 did not come to an end.
    """
    if config.model.hf is not None:
        from megatron_msm.train.hf_base import prepare_hf_base

        prepare_hf_base(config.model.hf, config.out, timeout_min=config.runtime.timeout_min)
    return find_base(config)


def _checkpoint_base(folder: Path) -> Base:
    return Base(folder, folder / HF_FOLDER, read_checkpoint_state(folder))
