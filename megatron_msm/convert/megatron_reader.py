"""Reading a torch_dist checkpoint tensor by tensor, in one process, whatever layout wrote it.

Needs no process group, no model and no megatron-core. Runs no code of the checkpoint: `.metadata`
goes through the restricted unpickler, tensors through `weights_only`.
"""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from megatron_msm.errors import CheckpointError
from megatron_msm.models.tensor_table import MappedTensor, Size
from megatron_msm.runtime.safe_metadata import read_metadata

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@dataclass(frozen=True)
class MegatronTensorInfo:
    """A global tensor of a checkpoint."""

    dtype: torch.dtype
    size: tuple[int, ...]
    chunks: tuple[ChunkStorageMetadata, ...]
    """The shards that it was written in."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor's data."""
        return torch.Size(self.size).numel() * self.dtype.itemsize


class MegatronCheckpoint:
    """The tensors of one iteration folder."""

    def __init__(self, folder: Path) -> None:
        """Read the folder's metadata.

        Raises:
            CheckpointError: It is missing, damaged, or not to be trusted.
        """
        self.folder = folder
        metadata = read_metadata(folder)
        self._storage = metadata.storage_data or {}
        self.tensors: Mapping[str, MegatronTensorInfo] = {
            key: MegatronTensorInfo(entry.properties.dtype, tuple(entry.size), tuple(entry.chunks))
            for key, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }

    def read_mapped(self, tensor: MappedTensor) -> torch.Tensor:
        """Read one tensor of a model's table, put together from the shards it was written in.

        Returns:
            A tensor of size `tensor.size`; rows that pad the vocabulary are left out.

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        region = self.read_region(tensor.key, tensor.offsets, tensor.lengths)
        return region.reshape(tensor.size)

    def read(self, key: str) -> torch.Tensor:
        """Read one whole tensor as it is stored.

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        size = self.tensors[key].size
        return self.read_region(key, (0,) * len(size), size)

    def read_region(self, key: str, offsets: Size, lengths: Size) -> torch.Tensor:
        """Read a part of a tensor: `lengths` values of each dimension from `offsets` on.

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        info = self.tensors[key]
        region: torch.Tensor | None = None
        covered = 0
        for chunk in info.chunks:
            overlap = _overlap(chunk, offsets, lengths)
            if overlap is None:
                continue
            part = self._read_chunk(key, info, chunk)[overlap.in_chunk]
            if tuple(part.shape) == lengths:
                return part
            if region is None:
                region = torch.empty(lengths, dtype=info.dtype)
            region[overlap.in_region] = part
            covered += part.numel()
        wanted = torch.Size(lengths).numel()
        if region is None or covered != wanted:
            raise self._damaged(key, f"its shards hold {covered} of {wanted} values")
        return region

    def _read_chunk(
        self, key: str, info: MegatronTensorInfo, chunk: ChunkStorageMetadata
    ) -> torch.Tensor:
        place = self._storage.get(MetadataIndex(key, chunk.offsets))
        if place is None:
            raise self._damaged(key, f"no file is named for the shard at {tuple(chunk.offsets)}")
        if getattr(place, "transform_descriptors", None):
            raise self._damaged(key, f"stored with {place.transform_descriptors}, not supported")
        try:
            with (self.folder / place.relative_path).open("rb", buffering=0) as file:
                window = _FileWindow(file, place.offset, place.length)
                tensor = torch.load(
                    io.BufferedReader(window), map_location="cpu", weights_only=True
                )
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise self._damaged(key, f"{place.relative_path}: {_first_line(error)}") from error
        if (
            not isinstance(tensor, torch.Tensor)
            or tensor.shape != chunk.sizes
            or tensor.dtype != info.dtype
        ):
            raise self._damaged(key, f"{place.relative_path}: not the tensor that was announced")
        return tensor

    def _damaged(self, key: str, reason: str) -> CheckpointError:
        return CheckpointError(
            f"{self.folder}: tensor {key!r} cannot be read ({reason}). "
            "The checkpoint is damaged; use another iteration."
        )


@dataclass(frozen=True)
class _Overlap:
    """Where a shard and a wanted region share values."""

    in_chunk: tuple[slice, ...]
    in_region: tuple[slice, ...]


def _overlap(chunk: ChunkStorageMetadata, offsets: Size, lengths: Size) -> _Overlap | None:
    in_chunk, in_region = [], []
    for begin, size, offset, length in zip(
        chunk.offsets, chunk.sizes, offsets, lengths, strict=True
    ):
        first, last = max(begin, offset), min(begin + size, offset + length)
        if first >= last:
            return None
        in_chunk.append(slice(first - begin, last - begin))
        in_region.append(slice(first - offset, last - offset))
    return _Overlap(tuple(in_chunk), tuple(in_region))


class _FileWindow(io.RawIOBase):
    """A part of a file as a file of its own; reads go straight into the tensor's memory."""

    def __init__(self, file: io.FileIO, offset: int, length: int) -> None:
        self._file, self._offset, self._length = file, offset, length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        wanted = memoryview(buffer).cast("B")[: max(self._length - self._position, 0)]
        self._file.seek(self._offset + self._position)
        num_read = self._file.readinto(wanted) or 0
        self._position += num_read
        return num_read


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
