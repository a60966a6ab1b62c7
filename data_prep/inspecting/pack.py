"""`msm prep pack`: pack a dataset once, and store the packing index beside it."""

import time
from pathlib import Path
from typing import NamedTuple

from megatron_msm.config.data import PackingConfig
from megatron_msm.data.packing.index import PackingIndex
from megatron_msm.data.packing.index_file import index_path, save_index
from megatron_msm.data.source import open_source
from megatron_msm.errors import ConfigError
from megatron_msm.formats.json_types import JsonRow
from megatron_msm.formats.manifest import dataset_file, read_manifest
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_provenance_rows


def rows_of_sequence(prefix: Path, packed: PackingIndex, index: int) -> list[str]:
    """Return what packed sequence `index` holds and where it comes from, one line each.

    Raises:
        ConfigError: There is no such sequence.
    """
    if not 0 <= index < len(packed):
        raise ConfigError(
            f"--show {index}: there are {len(packed)} packed sequences. Give a number from 0 to "
            f"{len(packed) - 1}."
        )
    here = packed.segments_of(index)
    rows = packed.segments.document[here].tolist()
    sources = read_provenance_rows(dataset_file(prefix, PROVENANCE_SUFFIX), rows)
    starts, lengths = packed.segments.start[here], packed.segments.length[here]
    return [
        f"  row {row} positions {start}-{start + length - 1}  {source.source_file}:"
        f"{source.source_line}  {', '.join(source.clause_ids or ())}".rstrip()
        for row, start, length, source in zip(rows, starts, lengths, sources, strict=True)
    ]


class Packed(NamedTuple):
    """A stored packing index."""

    path: Path
    packing_index: PackingIndex
    num_rows: int
    seconds: float
    """For packing, without reading and writing."""

    def as_json(self) -> JsonRow:
        """Return what `--json` prints."""
        return {
            "path": str(self.path),
            "rows": self.num_rows,
            "sequences": len(self.packing_index),
            "seq_length": self.packing_index.capacity,
            "fill": self.packing_index.fill,
            "align_cost": self.packing_index.align_cost,
            "most_documents": self.packing_index.most_documents,
            "seconds": self.seconds,
        }


def pack_dataset(prefix: Path, seq_length: int, packing: PackingConfig) -> Packed:
    """Pack a dataset and write the packing index, replacing one that is there.

    Raises:
        DataFormatError: The dataset is not finished, or cannot be packed at this length.
        ConfigError: The settings do not fit the dataset.
    """
    manifest = read_manifest(prefix)
    path = index_path(prefix, manifest.sha256, seq_length, packing)
    path.unlink(missing_ok=True)
    started = time.perf_counter()
    source = open_source(prefix, seq_length=seq_length, packing=packing)
    seconds = time.perf_counter() - started
    save_index(path, source.packing_index, manifest.sha256, packing)
    return Packed(path, source.packing_index, len(source.lengths), seconds)


def describe_packed(packed: Packed) -> list[str]:
    """Return a packing index in words, one line each."""
    index = packed.packing_index
    lines = [
        f"{packed.path}: {packed.num_rows:,} rows in {len(index):,} packed sequences of "
        f"{index.capacity} positions, packed in {packed.seconds:.2f} s",
        f"  {index.fill:.3%} full, at most {index.most_documents} documents a sequence",
    ]
    if index.align > 1:
        lines.append(
            f"  {index.align_cost:.3%} of all positions are padding to multiples of {index.align}"
        )
    return lines
