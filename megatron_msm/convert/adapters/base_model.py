"""Which model an exported adapter names as its base, so that it is found and is the right one.

An adapter's file holds A and B only; whoever loads it takes the base that its config names. The
base is known by itself when it came out of a hub's cache and no stage trained all weights since.
Otherwise it has to be named; a folder is compared with the weights beside the adapters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron_msm.convert.file_access import Scratch
from megatron_msm.convert.import_sources import HUB_REVISION, open_hf_source
from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.errors import CheckpointError, ConfigError
from megatron_msm.formats.checkpoint_folder import CheckpointState
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.tensor_table import MappedTensor

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class BaseModel:
    """What goes into adapter_config.json."""

    name: str
    """A hub's name, or the path of a folder."""
    revision: str | None = None
    """Commit on the hub."""


def recorded_base(folder: Path, state: CheckpointState) -> BaseModel:
    """Return the base that the checkpoint's history names.

    Raises:
        ConfigError: The history does not say where it can be found.
    """
    source = state.lineage[0].details
    whole = [entry.stage for entry in state.lineage[1:] if not entry.details.get("adapter")]
    if whole:
        raise ConfigError(
            f"{folder}: its adapters belong to the weights that stage {whole[-1]!r} ended with. "
            "Export that stage, and name the folder with --base."
        )
    if HUB_REVISION not in source:
        raise ConfigError(
            f"{folder}: its base came from a folder, {source.get('source')!r}, not from a hub's "
            "cache. Name the base with --base: the folder, or its name on the hub."
        )
    return BaseModel(str(source["source"]), str(source[HUB_REVISION]))


def named_base(
    base: str, checkpoint: MegatronCheckpoint, shape: ModelShape, mapped: Sequence[MappedTensor]
) -> BaseModel:
    """Take the base that the user names; a folder is compared with the checkpoint's weights.

    Args:
        base: A folder, or a name on the hub, which is taken as it is.
        checkpoint: Not merged: the base's weights.
        shape: The model's.
        mapped: Its tensors.

    Raises:
        CheckpointError: The folder holds another model.
        ConfigError: It is neither a folder nor a name.
    """
    folder = Path(base)
    if folder.is_dir():
        _check_is_base(folder, checkpoint, shape, mapped)
        return BaseModel(str(folder.resolve()))
    if not _HUB_NAME.fullmatch(base):
        raise ConfigError(f"--base: {base!r} is neither a folder nor a name on the hub.")
    return BaseModel(base)


def _check_is_base(
    folder: Path,
    checkpoint: MegatronCheckpoint,
    shape: ModelShape,
    mapped: Sequence[MappedTensor],
) -> None:
    found = read_model_shape(folder)
    if found.sha256 != shape.sha256:
        raise CheckpointError(
            f"{folder}: its config.json describes another model than the one that the adapters "
            "were trained on. Name that one with --base."
        )
    source = open_hf_source(folder, shape, mapped)
    ours, theirs = Scratch(), Scratch()
    for tensor in mapped:
        dtype = checkpoint.tensors[tensor.key].dtype
        trained, given = (memory.tensor(tensor.size, dtype) for memory in (ours, theirs))
        checkpoint.read_mapped(tensor, trained)
        source.read_into(tensor, given)
        if not torch.equal(trained, given):
            raise CheckpointError(
                f"{folder}: {tensor.hf_names[0]} is not what the adapters were trained on. Name "
                "the base with --base: the folder that training started from."
            )
