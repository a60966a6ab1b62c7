"""Writing sharded safetensors files whose tensors arrive in any order, one at a time.

The safetensors library writes a file from all of its tensors at once, which takes the memory of a
whole shard. Here all headers are written first, from names, dtypes and sizes, and every tensor then
goes to its place. Files are laid out as the library and transformers do it, so a model that is
exported unchanged with the same shards has the same bytes.
"""

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import torch

from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_json_atomic

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


class ShardedSafetensorsWriter:
    """One `model.safetensors`, or numbered shards and their index."""

    def __init__(self, folder: Path, shards: Sequence[Sequence[TensorLayout]]) -> None:
        """Write every file's header and set its final size.

        Args:
            folder: An existing folder.
            shards: Tensors of each file, in order.
        """
        self._folder = folder
        self._places: dict[str, tuple[Path, int, TensorLayout]] = {}
        self._weight_map: dict[str, str] = {}
        self._waiting: set[str] = set()
        for number, shard in enumerate(shards, start=1):
            file = folder / _shard_name(number, len(shards))
            self._write_header(file, shard)
        if len(shards) > 1:
            self._write_index()

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Put one tensor's data into its place. Each tensor is written exactly once."""
        file, offset, layout = self._places[name]
        assert tensor.dtype == layout.dtype, f"{name}: {tensor.dtype}"
        assert tuple(tensor.shape) == layout.size, f"{name}: {tuple(tensor.shape)}"
        self._waiting.remove(name)
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
        with file.open("r+b") as stream:
            stream.seek(offset)
            stream.write(data)

    def check_complete(self) -> None:
        """Assert that no tensor was left out: a hole in the file would read as zeros."""
        assert not self._waiting, f"not written: {sorted(self._waiting)[:8]}"

    def _write_header(self, file: Path, shard: Sequence[TensorLayout]) -> None:
        header: dict[str, Mapping[str, object]] = {"__metadata__": {"format": "pt"}}
        end = 0
        for tensor in shard:
            begin, end = end, end + tensor.num_bytes
            header[tensor.name] = {
                "dtype": DTYPE_NAMES[tensor.dtype],
                "shape": tensor.size,
                "data_offsets": (begin, end),
            }
        encoded = orjson.dumps(header)
        encoded += b" " * (-len(encoded) % 8)
        data_start = 8 + len(encoded)
        with file.open("wb") as stream:
            stream.write(struct.pack("<Q", len(encoded)) + encoded)
            stream.truncate(data_start + end)
        begin = data_start
        for tensor in shard:
            self._places[tensor.name] = (file, begin, tensor)
            self._weight_map[tensor.name] = file.name
            self._waiting.add(tensor.name)
            begin += tensor.num_bytes

    def _write_index(self) -> None:
        total = sum(layout.num_bytes for _, _, layout in self._places.values())
        index = {"metadata": {"total_size": total}, "weight_map": self._weight_map}
        write_json_atomic(self._folder / "model.safetensors.index.json", index)


def _shard_name(number: int, num_shards: int) -> str:
    if num_shards == 1:
        return "model.safetensors"
    return f"model-{number:05d}-of-{num_shards:05d}.safetensors"
