"""Reading torch_dist checkpoints without running code that they bring along.

A torch_dist checkpoint has two doors through which a file can run code in the process that loads
it: its `.metadata`, which torch reads with plain `pickle`, and its byte objects, which torch loads
with `weights_only=False`. `read_metadata` knows exactly the classes that such a file needs and
refuses every other name; `restricted_metadata_reading` makes torch and megatron-core do the same.
"""

import contextlib
import io
import pathlib
import pickle
from collections.abc import Iterator
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import NoReturn

import torch
from torch.distributed.checkpoint import filesystem, metadata, planner
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from megatron_msm.errors import CheckpointError

METADATA_FILE = ".metadata"


def _enum_member(enum: object, name: object) -> Enum:
    """Stand for `getattr`, with which Python 3.11.0 to 3.11.3 pickles the members of an enum."""
    known = next((known for known in _ENUMS if known is enum), None)
    if known is None or not isinstance(name, str):
        raise pickle.UnpicklingError(f"getattr of {enum!r}")
    return known[name]


class _OldMegatronMetadata(Metadata):
    """Stands for the subclass of `Metadata` that megatron-core up to 0.15 wrote."""


class _OldMegatronSavePlan(planner.SavePlan):
    """Stands for the subclass of `SavePlan` that megatron-core up to 0.15 wrote."""


_MEGATRON_TORCH = "megatron.core.dist_checkpointing.strategies.torch"
_ENUMS: tuple[type[Enum], ...] = (metadata._MEM_FORMAT_ENCODING, planner.WriteItemType)
_METADATA_CLASSES = (
    metadata.BytesStorageMetadata,
    metadata.ChunkStorageMetadata,
    metadata.Metadata,
    metadata.MetadataIndex,
    metadata.StorageMeta,
    metadata.TensorProperties,
    metadata.TensorStorageMetadata,
    metadata._MEM_FORMAT_ENCODING,
    # The write plans of all ranks, which megatron-core attaches (state_dict_saver.py:144).
    planner.BytesIOWriteData,
    planner.SavePlan,
    planner.TensorWriteData,
    planner.WriteItem,
    planner.WriteItemType,
    filesystem._StorageInfo,
    filesystem._StoragePrefix,
)
_ALLOWED: dict[tuple[str, str], object] = {
    **{(cls.__module__, cls.__qualname__): cls for cls in _METADATA_CLASSES},
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    # `StorageMeta.checkpoint_id`; Python 3.13 pickles it under another module name.
    ("pathlib", "PosixPath"): pathlib.PurePosixPath,
    ("pathlib._local", "PosixPath"): pathlib.PurePosixPath,
    ("builtins", "getattr"): _enum_member,
    # megatron-core 0.16.1 keeps dummies for them: dist_checkpointing/strategies/torch.py:87 and :94
    (_MEGATRON_TORCH, "MCoreMetadata"): _OldMegatronMetadata,
    (_MEGATRON_TORCH, "MCoreSavePlan"): _OldMegatronSavePlan,
    **{
        ("torch", name): value
        for name, value in vars(torch).items()
        if isinstance(value, torch.dtype)
    },
}


class _MetadataUnpickler(pickle.Unpickler):
    """Resolves the names of the allow-list; imports nothing."""

    def find_class(self, module: str, name: str) -> object:
        """Return an allowed class, or refuse by name."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise _ForeignGlobalError(f"{module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuse: metadata has no objects stored elsewhere."""
        raise _ForeignGlobalError(f"persistent object {pid!r}")


class _ForeignGlobalError(Exception):
    """The pickle names something that checkpoint metadata has no use for."""


def read_metadata(folder: Path) -> Metadata:
    """Read a torch_dist checkpoint's `.metadata`.

    Raises:
        CheckpointError: The file is missing or damaged, names a class outside the allow-list, or
            points outside the folder. None of its code has run.
    """
    return _read_metadata_file(folder / METADATA_FILE)


def _read_metadata_file(path: Path) -> Metadata:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path}: not found, so this is not a torch_dist checkpoint, or it is incomplete. "
            "Give an iteration folder that `msm convert import` or `msm train` wrote."
        ) from None
    try:
        found = _MetadataUnpickler(io.BytesIO(content)).load()
    except _ForeignGlobalError as error:
        raise CheckpointError(
            f"{path}: the file names {error}, which no checkpoint needs and which could run code. "
            "It was not loaded. Take the checkpoint from a source that you trust."
        ) from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        raise CheckpointError(
            f"{path}: damaged ({type(error).__name__}: {error}). Use another iteration."
        ) from None
    if not isinstance(found, Metadata):
        raise CheckpointError(
            f"{path}: holds {type(found).__name__}, not checkpoint metadata. Use another iteration."
        )
    _check_paths(found, path)
    return found


def _check_paths(found: Metadata, path: Path) -> None:
    for info in (found.storage_data or {}).values():
        name = PurePosixPath(str(getattr(info, "relative_path", "")))
        if name.is_absolute() or ".." in name.parts:
            raise CheckpointError(
                f"{path}: a tensor is stored in {str(name)!r}, outside the checkpoint's folder. "
                "It was not loaded."
            )


def _read_metadata(self: FileSystemReader, *, rank: int | None = None) -> Metadata:
    """Replace `FileSystemReader.read_metadata`; megatron-core's cached reader calls its super."""
    found = _read_metadata_file(Path(self._get_metadata_path(rank)))
    if found.storage_meta is None:
        found.storage_meta = StorageMeta()
    found.storage_meta.load_id = self.load_id
    return found


def _load_bytes(self: DefaultLoadPlanner, read_item: planner.ReadItem, value: io.BytesIO) -> None:
    """Replace `DefaultLoadPlanner.load_bytes`, the same but for `weights_only`."""
    name = read_item.dest_index.fqn
    try:
        loaded = torch.load(value, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint object {name!r} holds more than tensors and plain values, and was not "
            f"loaded: {error}"
        ) from None
    if self.flatten_state_dict:
        set_element(self.original_state_dict, self.mappings[name], loaded)
    else:
        self.state_dict[name] = loaded


@contextlib.contextmanager
def restricted_metadata_reading() -> Iterator[None]:
    """Make `torch.distributed.checkpoint` and megatron-core's loader read without running code.

    Replaces two methods of torch 2.13 for the length of the block, in this process:
    `FileSystemReader.read_metadata` (distributed/checkpoint/filesystem.py:930, `pickle.load`) and
    `DefaultLoadPlanner.load_bytes` (default_planner.py:387 and :390, `weights_only=False`). Goes
    away when torch reads both safely.
    """
    replaced: tuple[tuple[type, str, object], ...] = (
        (FileSystemReader, "read_metadata", _read_metadata),
        (DefaultLoadPlanner, "load_bytes", _load_bytes),
    )
    before = [getattr(owner, name) for owner, name, _ in replaced]
    for owner, name, ours in replaced:
        setattr(owner, name, ours)
    try:
        yield
    finally:
        for (owner, name, _), theirs in zip(replaced, before, strict=True):
            setattr(owner, name, theirs)
