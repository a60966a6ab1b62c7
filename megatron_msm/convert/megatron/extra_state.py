"""Empty `_extra_state` objects, for which other programs look in a checkpoint.

megatron-core's linear layers, and every module of Transformer Engine, have an object of that name:
the scales of delayed FP8, else nothing. None is kept here (train/checkpoints/checkpoint.py), but
megatron-core's default strictness refuses a checkpoint in which a name is missing, and takes one
that has more names than it asks for. So those of all layer specs are there, and all point to the
same few bytes: a list of None, as megatron-core writes it on a CPU.

Source: megatron-core 0.16.1, transformer/utils.py `make_sharded_object_for_checkpoint`,
tensor_parallel/layers.py `get_extra_state`, dist_checkpointing/mapping.py `ShardedObject`
(`unique_key`). Transformer Engine reads None as nothing (module/base.py, `set_extra_state`).
"""

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

from megatron_msm.models.tensor_table import MappedTensor
from megatron_msm.runtime.safe_metadata import METADATA_FILE, read_metadata

_FILE = "extra_state.pt"
_PROJECTION = ".self_attention.linear_qkv"


def extra_state_names(mapped: Sequence[MappedTensor]) -> tuple[str, ...]:
    """Return the name of each object in a model's checkpoint, one key a layer."""
    return tuple(dict.fromkeys(name for tensor in mapped for name in _names_beside(tensor)))


def _names_beside(tensor: MappedTensor) -> Iterator[str]:
    module = tensor.key.rpartition(".")[0]
    if not module.startswith("decoder."):
        return  # of the output layer megatron-core asks for none, an embedding has none
    number, count = 0, 1
    if tensor.expert is not None:
        number, count = tensor.expert, tensor.global_size[0]
    yield f"{module}._extra_state/shard_{number}_{count}"
    if module.endswith(_PROJECTION):
        attention = module.removesuffix(_PROJECTION) + ".self_attention.core_attention"
        yield f"{attention}._extra_state/shard_0_1"


def add_extra_state(folder: Path, mapped: Sequence[MappedTensor]) -> None:
    """Add the objects to a folder of torch_dist files whose metadata is written."""
    with (folder / _FILE).open("wb") as file:
        torch.save([None], file)
    storage = _StorageInfo(_FILE, 0, (folder / _FILE).stat().st_size)
    metadata = read_metadata(folder)
    metadata.storage_data = dict(metadata.storage_data or {})
    for name in extra_state_names(mapped):
        metadata.state_dict_metadata[name] = BytesStorageMetadata()
        metadata.storage_data[MetadataIndex(name)] = storage
    (folder / METADATA_FILE).write_bytes(pickle.dumps(metadata))
