"""Writing sharded safetensors files whose tensors arrive in any order, one at a time.

The safetensors library writes a file from all of its tensors at once, which takes the memory of a
whole shard. Here all headers are written first, from names, dtypes and sizes, and every tensor then
goes to its place. Files are laid out as the library and transformers do it, so a model that is
exported unchanged with the same shards has the same bytes.
"""

import re
import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson
import torch

from megatron_msm.convert.hashing_file import HashingFile
from megatron_msm.errors import CheckpointError, ConfigError
from megatron_msm.formats.files import FileRecord, write_json_atomic
from megatron_msm.formats.json_types import JsonRow

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class TensorLayout:
    """A tensor of the export, before its data is there."""

    name: str
    dtype: torch.dtype
    size: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor's data."""
        return torch.Size(self.size).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class _Extent:
    layout: TensorLayout
    begin: int
    end: int


def parse_size(text: str) -> int:
    """Return the bytes meant by `5GB`, `500 MB` or `2GiB`.

    Raises:
        ConfigError: It is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?b)\s*", text, flags=re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--max-shard-size: {text!r} is not a size. Write it like 5GB or 500MB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def split_into_shards(
    tensors: Iterable[TensorLayout], max_shard_bytes: int
) -> list[list[TensorLayout]]:
    """Fill shards in order; a tensor larger than a shard gets one of its own."""
    shards: list[list[TensorLayout]] = []
    filled = 0
    for tensor in tensors:
        if not shards or (filled + tensor.num_bytes > max_shard_bytes and shards[-1]):
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.num_bytes
    return shards


class SafetensorsFile:
    """A new file whose tensors are put into their places in any order.

    It is hashed meanwhile, as far as it is complete from its beginning on.
    """

    def __init__(self, path: Path, tensors: Sequence[TensorLayout], *, check: bool = False) -> None:
        """Write the header.

        Args:
            path: Of the file.
            tensors: In the order in which they lie in it.
            check: Read every tensor back when it is written.
        """
        self._path, self._check = path, check
        self._file = HashingFile(path)
        self._file.write(_header(tensors))
        self._extents: dict[str, _Extent] = {}
        end = self._file.num_bytes
        for tensor in tensors:
            begin, end = end, end + tensor.num_bytes
            self._extents[tensor.name] = _Extent(tensor, begin, end)
        self._unfinished = deque(self._extents.values())

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Put one tensor's data into its place. Each tensor is written exactly once.

        Args:
            name: Of the tensor.
            tensor: Its elements in their order; it may have gaps, and another size.

        Raises:
            CheckpointError: What is read back differs.
        """
        extent = self._extents.pop(name)
        assert tensor.dtype == extent.layout.dtype, f"{name}: {tensor.dtype}"
        assert tensor.nbytes == extent.layout.num_bytes, f"{name}: {tuple(tensor.shape)}"
        self._file.write_tensor(tensor, extent.begin)
        if self._check and not self._file.holds_tensor(tensor, extent.begin):
            raise CheckpointError(
                f"{self._path.name}: tensor {name!r}, read back, is not what was written. "
                "The disk or the memory is faulty; export to another disk."
            )
        while self._unfinished and self._unfinished[0].layout.name not in self._extents:
            self._file.finish(self._unfinished.popleft().end)

    def record(self) -> FileRecord:
        """Return size and hash of the file when every tensor is written."""
        return self._file.record()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close; without an error assert that nothing is left: a hole would read as zeros."""
        self._file.__exit__(kind, error, traceback)
        assert error is not None or not self._extents, f"not written: {list(self._extents)[:8]}"


def write_index(folder: Path, shards: Sequence[Sequence[TensorLayout]]) -> None:
    """Write model.safetensors.index.json: where each tensor is. One shard needs none."""
    if len(shards) == 1:
        return
    weight_map = {
        tensor.name: shard_name(number, len(shards))
        for number, shard in enumerate(shards)
        for tensor in shard
    }
    total = sum(tensor.num_bytes for shard in shards for tensor in shard)
    index: JsonRow = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json_atomic(folder / "model.safetensors.index.json", index)


def shard_name(index: int, num_shards: int) -> str:
    """Return the name of a file, `index` counted from zero."""
    if num_shards == 1:
        return "model.safetensors"
    return f"model-{index + 1:05d}-of-{num_shards:05d}.safetensors"


def _header(tensors: Sequence[TensorLayout]) -> bytes:
    header: dict[str, Mapping[str, object]] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.num_bytes
        header[tensor.name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": tensor.size,
            "data_offsets": (begin, end),
        }
    encoded = orjson.dumps(header)
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded
