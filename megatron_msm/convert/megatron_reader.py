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

    def read(self, key: str) -> torch.Tensor:
        """Read one global tensor, put together from however many shards it was written in.

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        info = self.tensors[key]
        if len(info.chunks) == 1 and tuple(info.chunks[0].sizes) == info.size:
            return self._read_chunk(key, info, info.chunks[0])
        tensor = torch.empty(info.size, dtype=info.dtype)
        covered = 0
        for chunk in info.chunks:
            place = tuple(
                slice(offset, offset + size)
                for offset, size in zip(chunk.offsets, chunk.sizes, strict=True)
            )
            tensor[place] = self._read_chunk(key, info, chunk)
            covered += torch.Size(chunk.sizes).numel()
        if covered != tensor.numel():
            raise self._damaged(key, f"its shards hold {covered} of {tensor.numel()} values")
        return tensor

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
