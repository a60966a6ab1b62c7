"""Writing a torch_dist checkpoint tensor by tensor, in one process, without a model.

The result is what `megatron.core.dist_checkpointing.save` writes for a model on one rank, so its
`load` reads it under any layout. Memory stays near the largest tensor: each is made when its turn
comes and dropped when it is written. torch's own FileSystemWriter is not used because it keeps
every tensor of a file until the file is closed (torch 2.13, filesystem.py, `tensor_dict` in
`_write_files_from_queue`), and gives every checkpoint a random id, so that equal ones would differ.
"""

import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from megatron_msm.models.tensor_table import Size
from megatron_msm.runtime.safe_metadata import METADATA_FILE

# A new file is begun when one has grown past this: small enough to copy and hash side by side.
MAX_FILE_BYTES = 4 * 2**30


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor of the checkpoint, or one shard of it, that is made when it is written."""

    key: str
    dtype: torch.dtype
    global_size: Size
    offsets: Size
    """Where in the global tensor the shard begins."""
    lengths: Size
    load: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class _CheckpointingConfig:
    """The content of metadata.json: megatron-core's `CheckpointingConfig`."""

    sharded_backend: str = "torch_dist"
    sharded_backend_version: int = 1
    common_backend: str = "torch"
    common_backend_version: int = 1


def write_torch_dist(
    folder: Path, tensors: Sequence[TensorToWrite], *, content: Mapping[str, Any]
) -> None:
    """Write `*.distcp`, `.metadata`, `common.pt` and `metadata.json` into an existing folder.

    Args:
        folder: Flushing it to disk is left to whoever publishes it.
        tensors: In the order of writing.
        content: megatron-core's content metadata: what kind of state dict this is.

    Source: torch 2.13, distributed/checkpoint/filesystem.py `_write_item` (one `torch.save` after
    the other, found by offset and length), `FileSystemWriter.finish`; megatron-core
    0.16.1, dist_checkpointing/core.py `save_config`, strategies/common.py `save_common`,
    serialization.py `save` (the content metadata is part of the common state).
    """
    storage = {
        MetadataIndex(tensor.key, torch.Size(tensor.offsets)): place
        for tensor, place in _write_files(folder, tensors)
    }
    metadata = Metadata(
        state_dict_metadata=dict(_describe(tensors)),
        storage_data=storage,
        storage_meta=StorageMeta(),
        version=CURRENT_DCP_VERSION,
    )
    (folder / METADATA_FILE).write_bytes(pickle.dumps(metadata))
    torch.save({"content_metadata": dict(content)}, folder / "common.pt")
    (folder / "metadata.json").write_text(json.dumps(asdict(_CheckpointingConfig())))


def _write_files(
    folder: Path, tensors: Sequence[TensorToWrite]
) -> Iterable[tuple[TensorToWrite, _StorageInfo]]:
    """Write all tensors in order and yield where each one is."""
    waiting = list(reversed(tensors))
    num_files = 0
    while waiting:
        name = f"__0_{num_files}.distcp"
        with (folder / name).open("wb") as file:
            while waiting and file.tell() < MAX_FILE_BYTES:
                tensor = waiting.pop()
                offset = file.tell()
                _append(file, tensor)
                yield tensor, _StorageInfo(name, offset, file.tell() - offset)
        num_files += 1


def _append(file: BinaryIO, planned: TensorToWrite) -> None:
    tensor = planned.load()
    assert tensor.dtype == planned.dtype, f"{planned.key}: {tensor.dtype}"
    assert tuple(tensor.shape) == planned.lengths, f"{planned.key}: {tuple(tensor.shape)}"
    # torch.save writes the whole storage, of which a view is only a part.
    if tensor.untyped_storage().nbytes() != tensor.nbytes or not tensor.is_contiguous():
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    torch.save(tensor, file)


def _describe(tensors: Sequence[TensorToWrite]) -> dict[str, TensorStorageMetadata]:
    described: dict[str, TensorStorageMetadata] = {}
    for tensor in tensors:
        chunk = ChunkStorageMetadata(
            offsets=torch.Size(tensor.offsets), sizes=torch.Size(tensor.lengths)
        )
        if tensor.key in described:
            described[tensor.key].chunks.append(chunk)
            continue
        described[tensor.key] = TensorStorageMetadata(
            properties=TensorProperties(dtype=tensor.dtype),
            size=torch.Size(tensor.global_size),
            chunks=[chunk],
        )
    return described
