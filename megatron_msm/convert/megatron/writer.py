"""Writing a torch_dist checkpoint tensor by tensor, file by file, without a model.

The result is what `megatron.core.dist_checkpointing.save` writes for a model on one rank, so its
`load` reads it under any layout. Memory stays near the largest tensor: each is made when its turn
comes and dropped when it is written. torch's own FileSystemWriter is not used because it keeps
every tensor of a file until the file is closed (torch 2.13, filesystem.py, `tensor_dict` in
`_write_files_from_queue`), and gives every checkpoint a random id, so that equal ones would differ.
"""

import contextlib
import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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

from megatron_msm.convert.hashing_file import HashingFile
from megatron_msm.formats.files import FileRecord
from megatron_msm.models.tensor_table import MappedTensor
from megatron_msm.runtime.safe_metadata import METADATA_FILE

# Every layer has a key of its own, so that layers may differ and any pipeline layout can load them.
CONTENT_METADATA = {"non_homogeneous_layers": True}
# A new file is begun when one has grown past this: a model has few files, and none is huge.
MAX_FILE_BYTES = 2**30


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor of the checkpoint, or one expert of it."""

    mapped: MappedTensor
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of its data."""
        return torch.Size(self.mapped.size).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class WrittenFile:
    """A file of tensors."""

    name: str
    storages: tuple[_StorageInfo, ...]
    """Where each tensor is, in the order of writing."""
    record: FileRecord


@dataclass(frozen=True)
class _CheckpointingConfig:
    """The content of metadata.json: megatron-core's `CheckpointingConfig`."""

    sharded_backend: str = "torch_dist"
    sharded_backend_version: int = 1
    common_backend: str = "torch"
    common_backend_version: int = 1


def split_into_files(tensors: Sequence[TensorToWrite]) -> list[list[TensorToWrite]]:
    """Deal tensors to files, in order."""
    files: list[list[TensorToWrite]] = []
    filled = MAX_FILE_BYTES
    for tensor in tensors:
        if filled >= MAX_FILE_BYTES:
            files.append([])
            filled = 0
        files[-1].append(tensor)
        filled += tensor.num_bytes
    return files


def write_file(
    folder: Path,
    number: int,
    tensors: Sequence[TensorToWrite],
    load: Callable[[TensorToWrite], torch.Tensor],
) -> WrittenFile:
    """Write one `.distcp` file.

    Args:
        folder: Flushing it to disk is left to whoever publishes it.
        number: Of the file.
        tensors: In the order of writing.
        load: Makes a tensor when its turn comes, in a storage of its own size. It may use the
            same memory again for the next one.

    Source: torch 2.13, distributed/checkpoint/filesystem.py `_write_item` (one `torch.save` after
    the other, found by offset and length).
    """
    name = f"__0_{number}.distcp"
    storages = []
    with HashingFile(folder / name) as file, _without_checksums():
        for tensor in tensors:
            offset = file.num_bytes
            _append(file, tensor, load(tensor))
            file.finish(file.num_bytes)
            storages.append(_StorageInfo(name, offset, file.num_bytes - offset))
        return WrittenFile(name, tuple(storages), file.record())


def write_metadata(
    folder: Path,
    files: Sequence[tuple[Sequence[TensorToWrite], WrittenFile]],
    *,
    content: Mapping[str, str | bool],
) -> None:
    """Write `.metadata`, `common.pt` and `metadata.json` beside the files of tensors.

    Args:
        folder: Of the files.
        files: What was planned for each file, and where it is.
        content: megatron-core's content metadata: what kind of state dict this is.

    Source: torch 2.13, distributed/checkpoint/filesystem.py `FileSystemWriter.finish`;
    megatron-core 0.16.1, dist_checkpointing/core.py `save_config`, strategies/common.py
    `save_common`, serialization.py `save` (the content metadata is part of the common state).
    """
    storage = {
        MetadataIndex(tensor.mapped.key, torch.Size(tensor.mapped.offsets)): storage
        for tensors, written in files
        for tensor, storage in zip(tensors, written.storages, strict=True)
    }
    metadata = Metadata(
        state_dict_metadata=dict(_describe([t for tensors, _ in files for t in tensors])),
        storage_data=storage,
        storage_meta=StorageMeta(),
        version=CURRENT_DCP_VERSION,
    )
    (folder / METADATA_FILE).write_bytes(pickle.dumps(metadata))
    torch.save({"content_metadata": dict(content)}, folder / "common.pt")
    (folder / "metadata.json").write_text(json.dumps(asdict(_CheckpointingConfig())))


@contextlib.contextmanager
def _without_checksums() -> Iterator[None]:
    """Leave out the zip format's CRC-32: nothing reads it, and it takes longer than writing.

    torch.load does not check it; the checkpoint's own list has the SHA-256 of every file.
    """
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _append(file: HashingFile, planned: TensorToWrite, tensor: torch.Tensor) -> None:
    mapped = planned.mapped
    assert tensor.dtype == planned.dtype, f"{mapped.key}: {tensor.dtype}"
    assert tuple(tensor.shape) == mapped.lengths, f"{mapped.key}: {tuple(tensor.shape)}"
    # torch.save writes the whole storage: of a view that would be too much.
    assert tensor.untyped_storage().nbytes() == tensor.nbytes
    assert tensor.is_contiguous()
    try:
        torch.save(tensor, file)  # type: ignore[arg-type]  # write and flush are all that it uses
    except RuntimeError as error:
        # torch fails once more when it closes the archive, and hides what the system said.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _describe(tensors: Sequence[TensorToWrite]) -> dict[str, TensorStorageMetadata]:
    described: dict[str, TensorStorageMetadata] = {}
    for tensor in tensors:
        chunk = ChunkStorageMetadata(
            offsets=torch.Size(tensor.mapped.offsets), sizes=torch.Size(tensor.mapped.lengths)
        )
        if tensor.mapped.key in described:
            described[tensor.mapped.key].chunks.append(chunk)
            continue
        described[tensor.mapped.key] = TensorStorageMetadata(
            properties=TensorProperties(dtype=tensor.dtype),
            size=torch.Size(tensor.mapped.global_size),
            chunks=[chunk],
        )
    return described
