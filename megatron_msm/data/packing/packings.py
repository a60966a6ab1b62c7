"""Packing done once for several processes of a node, and once for a dataset that is used twice.

One process packs and writes a folder; the others find there what they ask for. An index is known by
the lengths and settings that it follows from, so one of other data is never taken.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_msm.config.data import PackingConfig
from megatron_msm.data.packing.index import PackingIndex
from megatron_msm.data.packing.index_file import index_path, load_index, save_index
from megatron_msm.data.packing.strategies import pack_documents

_Key = tuple[str, int, str]


class Packings:
    """Packing indexes, each computed once.

    Args:
        folder: What another process wrote with `write`; None: nothing is there to be read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[_Key, tuple[PackingIndex, PackingConfig]] = {}

    def pack(
        self, lengths: npt.NDArray[np.integer], capacity: int, packing: PackingConfig
    ) -> PackingIndex:
        """Return the packing of documents of `lengths` tokens, as `pack_documents` makes it."""
        lengths_sha256 = hashlib.sha256(np.ascontiguousarray(lengths, np.int64).data).hexdigest()
        key = lengths_sha256, capacity, packing.model_dump_json()
        if key not in self._known:
            index = self._read(lengths_sha256, capacity, packing)
            if index is None:
                index = pack_documents(lengths, capacity, packing)
            self._known[key] = index, packing
        return self._known[key][0]

    def write(self, folder: Path) -> None:
        """Write what was packed so far."""
        for (lengths_sha256, capacity, _), (index, packing) in self._known.items():
            path = index_path(folder / "lengths", lengths_sha256, capacity, packing)
            save_index(path, index, lengths_sha256, packing)

    def _read(
        self, lengths_sha256: str, capacity: int, packing: PackingConfig
    ) -> PackingIndex | None:
        if self._folder is None:
            return None
        path = index_path(self._folder / "lengths", lengths_sha256, capacity, packing)
        return load_index(path, lengths_sha256, capacity, packing) if path.is_file() else None
