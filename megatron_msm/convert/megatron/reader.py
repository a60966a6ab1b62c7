"""Reading a torch_dist checkpoint tensor by tensor, in one process, whatever layout wrote it.

Needs no process group, no model and no megatron-core. Runs no code of the checkpoint: `.metadata`
goes through the restricted unpickler, tensors through `weights_only`.
"""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from megatron_msm.convert.file_access import Scratch, read_into
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
        self._scratch = Scratch()
        self.tensors: Mapping[str, MegatronTensorInfo] = {
            key: MegatronTensorInfo(entry.properties.dtype, tuple(entry.size), tuple(entry.chunks))
            for key, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }

    def read_mapped(self, tensor: MappedTensor, target: torch.Tensor) -> None:
        """Read one tensor of a model's table, put together from the shards it was written in.

        Args:
            tensor: Of the table.
            target: Of size `tensor.size`; rows that pad the vocabulary are left out.

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        self.read_region(tensor.key, tensor.offsets, target.view(tensor.lengths))

    def read_parts(self, tensor: MappedTensor) -> list[torch.Tensor]:
        """Read one tensor of a table into memory of its own, and take it apart.

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        fused = torch.empty(tensor.size, dtype=self.tensors[tensor.key].dtype)
        MegatronCheckpoint.read_mapped(self, tensor, fused)
        return tensor.split(fused)

    def read(self, key: str) -> torch.Tensor:
        """Read one whole tensor as it is stored, into memory of its own.

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        info = self.tensors[key]
        tensor = torch.empty(info.size, dtype=info.dtype)
        self.read_region(key, (0,) * len(info.size), tensor)
        return tensor

    def read_region(self, key: str, offsets: Size, target: torch.Tensor) -> None:
        """Read a part of a tensor: what `target` has room for, from `offsets` on.

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        info = self.tensors[key]
        covered = 0
        for chunk in info.chunks:
            overlap = _overlap(chunk, offsets, tuple(target.shape))
            if overlap is None:
                continue
            part = target[overlap.in_region]
            self._read_chunk(key, info, chunk, overlap.in_chunk, part)
            covered += part.numel()
        if covered != target.numel():
            raise self._damaged(key, f"its shards hold {covered} of {target.numel()} values")

    def _read_chunk(
        self,
        key: str,
        info: MegatronTensorInfo,
        chunk: ChunkStorageMetadata,
        wanted: tuple[slice, ...],
        target: torch.Tensor,
    ) -> None:
        """Read a part of a shard, straight into `target` where both are without gaps."""
        storage = self._storage.get(MetadataIndex(key, chunk.offsets))
        if storage is None:
            raise self._damaged(key, f"no file is named for the shard at {tuple(chunk.offsets)}")
        if getattr(storage, "transform_descriptors", None):
            raise self._damaged(key, f"stored with {storage.transform_descriptors}, not supported")
        try:
            with (self.folder / storage.relative_path).open("rb", buffering=0) as file:
                stored = _find_tensor(file, storage.offset, storage.length)
                if stored.tensor.shape != chunk.sizes or stored.tensor.dtype != info.dtype:
                    raise ValueError("not the tensor that was announced")
                self._read_part(file.fileno(), stored, wanted, target)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise self._damaged(key, f"{storage.relative_path}: {_first_line(error)}") from error

    def _read_part(
        self, file: int, stored: "_StoredTensor", wanted: tuple[slice, ...], target: torch.Tensor
    ) -> None:
        part = stored.tensor[wanted]
        offset = stored.offset + int(part.storage_offset()) * part.itemsize
        # The bytes from the part's first element to its last.
        span = 1 + sum((n - 1) * step for n, step in zip(part.shape, part.stride(), strict=True))
        if part.is_contiguous() and target.is_contiguous() and target.dtype == part.dtype:
            is_whole = read_into(file, offset, target)
        else:
            content = self._scratch.tensor((span,), part.dtype)
            is_whole = read_into(file, offset, content)
            target.copy_(content.as_strided(part.shape, part.stride()))
        if not is_whole or offset + span * part.itemsize > stored.end:
            raise EOFError("the file is too short")

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


@dataclass(frozen=True)
class _StoredTensor:
    """A tensor in a file that is not read yet."""

    tensor: torch.Tensor
    """Its dtype, size and strides, on the device `meta`."""
    offset: int
    """Where its storage begins in the file."""
    end: int
    """Where the part of the file that was written for it ends."""


def _find_tensor(file: io.FileIO, offset: int, length: int) -> _StoredTensor:
    """Read everything but the data of what `torch.save` wrote at `offset`.

    Source: torch 2.13, serialization.py `_save` and `_load`: a tensor's only storage is the record
    `data/0` of a zip archive, uncompressed.
    """
    window = io.BufferedReader(_FileWindow(file, offset, length))
    reader: Any = torch._C.PyTorchFileReader(window)  # whose types leave the method out
    begin: int = reader.get_record_offset("data/0")
    window.seek(0)
    tensor = torch.load(window, map_location="meta", weights_only=True)
    if not isinstance(tensor, torch.Tensor):
        raise ValueError("not a tensor")
    return _StoredTensor(tensor, offset + begin, offset + length)


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
