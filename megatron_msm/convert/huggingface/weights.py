"""The weights of a Hugging Face folder, read one tensor at a time.

Safetensors files are read with plain file reads, not through a memory map: the pages of a map count
as resident memory until it is closed, and would make that grow with the file. `.bin` files are
pickles; they are opened only with `weights_only`, one file at a time, when there is no safetensors.
"""

import logging
import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

import orjson
import torch
from safetensors import SafetensorError, safe_open

from megatron_msm.convert.file_access import read_into
from megatron_msm.convert.huggingface.files import resolve_inside
from megatron_msm.errors import CheckpointError

logger = logging.getLogger(__name__)

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True)
class HfTensorInfo:
    """What is known of a tensor before it is read."""

    dtype: torch.dtype
    size: tuple[int, ...]
    file: Path
    offset: int = 0
    """Where its bytes begin in the file (safetensors only)."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor's data."""
        return torch.Size(self.size).numel() * self.dtype.itemsize


class HfWeights(Protocol):
    """All tensors of a folder, in the order of its files."""

    @property
    def tensors(self) -> Mapping[str, HfTensorInfo]:
        """What is known of each tensor."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files."""
        ...

    def read_into(self, name: str, target: torch.Tensor) -> None:
        """Read one tensor's elements, in their order, into a tensor that may have another size.

        Raises:
            CheckpointError: The file ends before.
        """
        ...


def read_tensor(weights: HfWeights, name: str) -> torch.Tensor:
    """Read one tensor into memory of its own."""
    info = weights.tensors[name]
    tensor = torch.empty(info.size, dtype=info.dtype)
    weights.read_into(name, tensor)
    return tensor


def open_hf_weights(folder: Path) -> HfWeights:
    """Find the folder's weight files and read their tables of contents.

    Raises:
        CheckpointError: No weights, a damaged file, an index that does not match its files, or one
            that leads outside the folder.
    """
    openers: dict[str, Callable[[list[Path]], HfWeights]] = {
        "model.safetensors": SafetensorsWeights,
        "pytorch_model.bin": BinWeights,
    }
    for single, opener in openers.items():
        index = folder / f"{single}.index.json"
        has_index = index.exists() and not _is_left_over(folder, single, index)
        if has_index:
            weight_map = _read_index(index)
            # Shards are numbered in the order of the model; their names sort that way.
            names = sorted(set(weight_map.values()))
            weights = opener([resolve_inside(folder, name) for name in names])
            _check_index(index, weight_map, weights)
            return weights
        if (folder / single).exists():
            return opener([resolve_inside(folder, single)])
    raise CheckpointError(
        f"{folder}: no weights found (model.safetensors, model.safetensors.index.json, or "
        "pytorch_model.bin). Give a complete Hugging Face model folder."
    )


def _is_left_over(folder: Path, single: str, index: Path) -> bool:
    """Return whether an index speaks of files that are gone, beside a single file that is there.

    transformers reads the single file first, other programs the index.

    Raises:
        CheckpointError: Both sets are there.
    """
    if not (folder / single).exists():
        return False
    others = sorted({*_read_index(index).values()} - {single})
    present = [name for name in others if (folder / name).exists()]
    if present:
        raise CheckpointError(
            f"{folder}: holds two sets of weights, {single} (which transformers reads) and the "
            f"{len(others)} files of {index.name} ({present[0]}, ...). Remove one of them."
        )
    if others:
        logger.warning("%s: ignored, its files are gone; %s is read", index, single)
    return bool(others)


class SafetensorsWeights:
    """Tensors of one or more safetensors files."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Read and check the headers."""
        self.files = tuple(files)
        self.tensors: dict[str, HfTensorInfo] = {}
        for file in self.files:
            _add_all(self.tensors, _read_safetensors_header(file), file)

    def read_into(self, name: str, target: torch.Tensor, *, from_byte: int = 0) -> None:
        """Read one tensor's elements; straight into the target when it has their dtype.

        Args:
            name: Of the tensor.
            target: Says how many elements.
            from_byte: Of the tensor's data, where they begin.
        """
        info = self.tensors[name]
        content = target
        if target.dtype != info.dtype:
            content = torch.empty(target.shape, dtype=info.dtype)
        with info.file.open("rb", buffering=0) as file:
            is_whole = read_into(file.fileno(), info.offset + from_byte, content)
        if not is_whole:
            raise CheckpointError(
                f"{info.file}: ends inside tensor {name!r}. The file is truncated; fetch it again."
            )
        if content is not target:
            target.copy_(content)


class BinWeights:
    """Tensors of one or more `.bin` files, opened with `weights_only`."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Open every file once for its names, dtypes and sizes."""
        self.files = tuple(files)
        self.tensors: dict[str, HfTensorInfo] = {}
        self._opened: tuple[Path, dict[str, torch.Tensor]] | None = None
        for file in self.files:
            infos = {
                name: HfTensorInfo(tensor.dtype, tuple(tensor.shape), file)
                for name, tensor in self._open(file).items()
            }
            _add_all(self.tensors, infos, file)

    def read_into(self, name: str, target: torch.Tensor) -> None:
        """Copy one tensor's elements out of its file."""
        target.copy_(self._open(self.tensors[name].file)[name].reshape(target.shape))

    def __getstate__(self) -> dict[str, object]:
        """Go to another process without the tensors of the open file."""
        return {**self.__dict__, "_opened": None}

    def _open(self, file: Path) -> dict[str, torch.Tensor]:
        if self._opened is None or self._opened[0] != file:
            self._opened = (file, _load_bin(file))
        return self._opened[1]


def _add_all(
    tensors: dict[str, HfTensorInfo], more: Mapping[str, HfTensorInfo], file: Path
) -> None:
    for name, info in more.items():
        if name in tensors:
            raise CheckpointError(
                f"{file}: tensor {name!r} is also in {tensors[name].file.name}. "
                "Keep one of the two, and correct the index."
            )
        if info.dtype not in _DTYPES.values():
            raise _unsupported_dtype(file, name, str(info.dtype))
        tensors[name] = info


def _unsupported_dtype(file: Path, name: str, dtype: str) -> CheckpointError:
    return CheckpointError(
        f"{file}: tensor {name!r} has dtype {dtype}. Only {', '.join(_DTYPES)} can be converted: "
        "give the model before quantisation."
    )


class _HeaderEntry(TypedDict):
    """A tensor in a table of contents that the library has checked."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def _read_safetensors_header(path: Path) -> dict[str, HfTensorInfo]:
    """Read a file's table of contents, in the order of the data.

    Source: https://github.com/huggingface/safetensors, README "Format": 8 bytes little-endian
    length, JSON, data. The library itself checks offsets, sizes and the end of the file.
    """
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a complete safetensors file ({error}). Fetch it again."
        ) from None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, _HeaderEntry] = orjson.loads(file.read(length))
    header.pop("__metadata__", None)
    infos = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            raise _unsupported_dtype(path, name, entry["dtype"])
        infos[name] = HfTensorInfo(
            dtype=_DTYPES[entry["dtype"]],
            size=tuple(entry["shape"]),
            file=path,
            offset=8 + length + entry["data_offsets"][0],
        )
    return infos


def _load_bin(path: Path) -> dict[str, torch.Tensor]:
    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files written by torch before 1.6 cannot be mapped
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: not loaded, it is damaged or holds more than tensors ({reason}). "
            "Use the model's safetensors files."
        ) from None
    if not isinstance(loaded, dict) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise CheckpointError(f"{path}: not a dictionary of tensors. Use safetensors files.")
    return loaded


def _read_index(path: Path) -> dict[str, str]:
    resolve_inside(path.parent, path.name)
    try:
        weight_map = orjson.loads(path.read_bytes())["weight_map"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a weight index ({error}). Fetch it again.") from None
    if not isinstance(weight_map, dict) or not all(
        isinstance(name, str) for name in weight_map.values()
    ):
        raise CheckpointError(f"{path}: weight_map is not a table of names. Fetch it again.")
    return weight_map


def _check_index(index: Path, weight_map: Mapping[str, str], weights: HfWeights) -> None:
    for name, file in weight_map.items():
        info = weights.tensors.get(name)
        if info is None or info.file.name != Path(file).name:
            raise CheckpointError(
                f"{index}: tensor {name!r} should be in {file}, which does not hold it. "
                "The folder mixes two models, or a file is missing; fetch it again."
            )
