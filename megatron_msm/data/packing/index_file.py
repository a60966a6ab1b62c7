"""PREFIX.pack-<sequence length>-<hash>.npz: a packing index stored beside its dataset.

    header     JSON: format version, dataset, sequence length, packing settings
    document   int32 [segments]  row of the dataset
    start      int32 [segments]  first position inside the document
    length     int32 [segments]  number of positions
    offsets    int64 [sequences + 1]  where each sequence begins among the segments

The hash in the name is that of the header, and the header names the dataset's content, so an index
of another dataset or other settings is never found under the name that is looked for. The arrays
are plain: nothing is unpickled.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from megatron_msm.config.data import PackingConfig
from megatron_msm.data.packing.index import PackingIndex, Segments, positions_of
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_json, write_bytes_atomic
from megatron_msm.formats.json_types import JsonRow

_FORMAT_VERSION = 1


def index_path(prefix: Path, dataset_sha256: str, capacity: int, packing: PackingConfig) -> Path:
    """Return where the index of a dataset for these settings is stored."""
    digest = sha256_of_json(_header(dataset_sha256, capacity, packing))
    return Path(f"{prefix}.pack-{capacity}-{digest[:12]}.npz")


def save_index(
    path: Path, index: PackingIndex, dataset_sha256: str, packing: PackingConfig
) -> None:
    """Write an index; the file appears whole or not at all."""
    header = orjson.dumps(_header(dataset_sha256, index.capacity, packing))
    content = io.BytesIO()
    np.savez_compressed(
        content,
        header=np.frombuffer(header, np.uint8),
        document=index.segments.document.astype(np.int32),
        start=index.segments.start.astype(np.int32),
        length=index.segments.length.astype(np.int32),
        offsets=index.offsets,
    )
    write_bytes_atomic(path, content.getvalue())


def stored_index(
    prefix: Path,
    dataset_sha256: str,
    lengths: npt.NDArray[np.integer],
    capacity: int,
    packing: PackingConfig,
) -> PackingIndex | None:
    """Return the index stored beside the dataset, None when there is none.

    Raises:
        DataFormatError: The stored index is damaged.
    """
    path = index_path(prefix, dataset_sha256, capacity, packing)
    if not path.is_file():
        return None
    index = load_index(path, dataset_sha256, capacity, packing)
    _check_covers(path, index, lengths)
    return index


def load_index(
    path: Path, dataset_sha256: str, capacity: int, packing: PackingConfig
) -> PackingIndex:
    """Read a stored index.

    Raises:
        DataFormatError: It is damaged, or is another index under this name.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = orjson.loads(file["header"].tobytes())
            arrays = {
                name: file[name].astype(np.int64)
                for name in ("document", "start", "length", "offsets")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)) from None
    if header != _header(dataset_sha256, capacity, packing):
        raise _damaged(path, "it was made for another dataset or other settings")
    offsets = arrays.pop("offsets")
    return PackingIndex(Segments(**arrays), offsets, capacity, packing.align)


def _header(dataset_sha256: str, capacity: int, packing: PackingConfig) -> JsonRow:
    return {
        "format_version": _FORMAT_VERSION,
        "dataset_sha256": dataset_sha256,
        "seq_length": capacity,
        "packing": packing.model_dump(mode="json"),
    }


def _check_covers(path: Path, index: PackingIndex, lengths: npt.NDArray[np.integer]) -> None:
    """Check that every document's positions are in the index, and every sequence holds its own."""
    segments, offsets = index.segments, index.offsets
    is_ordered = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(segments)
    in_range = ((segments.document >= 0) & (segments.document < len(lengths))).all()
    if not is_ordered or not in_range or (np.diff(offsets) < 1).any():
        raise _damaged(path, "its segments are not those of the dataset")
    found = np.bincount(segments.document, segments.length, minlength=len(lengths))
    used = np.add.reduceat(segments.length, offsets[:-1]) if len(index) else np.zeros(0)
    if not np.array_equal(found, positions_of(lengths)) or (used > index.capacity).any():
        raise _damaged(path, "it does not hold every position of the dataset once")


def _damaged(path: Path, why: str) -> DataFormatError:
    return DataFormatError(
        f"{path}: not a usable packing plan ({why}). Remove it, or write it again with "
        "`msm prep pack`."
    )
