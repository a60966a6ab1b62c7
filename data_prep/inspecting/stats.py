"""`msm prep stats`: how long the rows of a dataset are, and what they are about."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from megatron_msm.data.packing.strategies import pack_documents
from megatron_msm.errors import ConfigError, MissingExtraError
from megatron_msm.formats.indexed_dataset import IndexedDataset
from megatron_msm.formats.json_types import JsonRow
from megatron_msm.formats.manifest import DatasetManifest, dataset_file, read_manifest
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 0.99, 1.0)
_BAR_WIDTH = 40
_LEAST_SHOWN_GROUPS = 20


class Total(NamedTuple):
    """Rows and tokens with one value of a provenance field."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class Stats:
    """The figures of one dataset."""

    prefix: Path
    manifest: DatasetManifest
    lengths: npt.NDArray[np.int32]
    """[rows] tokens."""
    edges: npt.NDArray[np.int64]
    """[bins + 1] of the histogram: powers of two."""
    counts: npt.NDArray[np.int64]
    """[bins]"""
    totals: dict[str, dict[str, Total]]
    """By field and value. A row with several clauses counts in each of them."""
    fill: dict[int, float]
    """By sequence length: share of positions filled after best-fit packing."""

    @property
    def quantiles(self) -> dict[str, int]:
        """Lengths at some quantiles."""
        values = np.quantile(self.lengths, _QUANTILES, method="nearest")
        return {f"p{q * 100:g}": int(v) for q, v in zip(_QUANTILES, values, strict=True)}

    def as_json(self) -> JsonRow:
        """Return what `--json` prints."""
        return {
            "prefix": str(self.prefix),
            **self.manifest.counts.as_json(),
            "quantiles": self.quantiles,
            "histogram": {"edges": self.edges.tolist(), "rows": self.counts.tolist()},
            "totals": {
                field: {value: total._asdict() for value, total in groups.items()}
                for field, groups in self.totals.items()
            },
            "fill": {str(length): share for length, share in self.fill.items()},
        }


def read_stats(prefix: Path, *, by: list[str], seq_lengths: list[int]) -> Stats:
    """Measure a dataset.

    Args:
        prefix: The dataset.
        by: Provenance fields to total.
        seq_lengths: Lengths to try packing at.

    Raises:
        ConfigError: There is no such field.
        DataFormatError: The dataset is not finished.
    """
    manifest = read_manifest(prefix)
    lengths = IndexedDataset(prefix).lengths
    top = int(np.ceil(np.log2(int(lengths.max()) + 1)))
    low = int(np.floor(np.log2(max(int(lengths.min()), 1))))
    edges = 2 ** np.arange(low, top + 1, dtype=np.int64)
    counts, _ = np.histogram(lengths, edges)
    return Stats(
        prefix=prefix,
        manifest=manifest,
        lengths=lengths,
        edges=edges,
        counts=counts.astype(np.int64),
        totals={field: _totals(prefix, field) for field in by},
        fill={length: pack_documents(lengths, length).fill for length in seq_lengths},
    )


def describe_stats(stats: Stats) -> Iterator[str]:
    """Yield the figures in words and bars, one line each."""
    counts = stats.manifest.counts
    yield f"{stats.prefix}: {counts.kept:,} rows, {counts.tokens:,} tokens"
    if stats.manifest.kind == "chats":
        share = counts.loss_tokens / counts.tokens
        yield f"  {counts.loss_tokens:,} tokens carry loss ({share:.0%})"
    yield "  tokens of a row: " + ", ".join(f"{q} {v:,}" for q, v in stats.quantiles.items())
    width = len(f"{int(stats.edges[-1]):,}")
    for low, high, count in zip(stats.edges, stats.edges[1:], stats.counts, strict=False):
        bar = "█" * max(round(_BAR_WIDTH * int(count) / int(stats.counts.max())), int(count > 0))
        yield f"  {int(low):>{width},} to {int(high) - 1:<{width},} {bar:<{_BAR_WIDTH}} {count:,}"
    for length, share in stats.fill.items():
        yield f"  packed at {length:,} positions: {share:.3%} full"
    for field, groups in stats.totals.items():
        yield f"  by {field}:"
        for value, total in list(groups.items())[:_LEAST_SHOWN_GROUPS]:
            yield (
                f"    {value:<24} {total.rows:>9,} rows {total.tokens:>13,} tokens "
                f"({total.tokens / counts.tokens:.1%})"
            )
        if len(groups) > _LEAST_SHOWN_GROUPS:
            yield f"    and {len(groups) - _LEAST_SHOWN_GROUPS} more; --json has all"


def write_histogram(stats: Stats, path: Path) -> None:
    """Draw the histogram as a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(feature="--png", extra="evals") from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    bins = np.geomspace(max(int(stats.lengths.min()), 1), int(stats.lengths.max()) + 1, 40)
    axes.hist(stats.lengths, bins=np.unique(bins).tolist())
    axes.set_xscale("log", base=2)
    axes.set_xlabel("tokens of a row")
    axes.set_ylabel("rows")
    axes.set_title(f"{stats.prefix.name}: {len(stats.lengths):,} rows")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")


def _totals(prefix: Path, field: str) -> dict[str, Total]:
    file = pq.ParquetFile(dataset_file(prefix, PROVENANCE_SUFFIX))
    names = file.schema_arrow.names
    if field not in names:
        raise ConfigError(
            f"--by {field}: {prefix} has no such provenance field. It has {', '.join(names)}."
        )
    rows: dict[str, int] = defaultdict(int)
    tokens: dict[str, int] = defaultdict(int)
    columns = list(dict.fromkeys([field, "tokens"]))
    for group in range(file.num_row_groups):
        for record in file.read_row_group(group, columns=columns).to_pylist():
            value = record[field]
            for name in value if isinstance(value, list) else [value]:
                key = "(none)" if name is None else str(name)
                rows[key] += 1
                tokens[key] += record["tokens"]
    by_size = sorted(rows, key=lambda key: (-tokens[key], key))
    return {key: Total(rows[key], tokens[key]) for key in by_size}
