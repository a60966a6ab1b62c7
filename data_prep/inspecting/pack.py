"""`msm prep pack`: plan the packed sequences of a dataset once, and store the plan beside it."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from megatron_msm.config.data import PackingConfig
from megatron_msm.data.pack_plan import PackPlan
from megatron_msm.data.plan_file import plan_path, save_plan
from megatron_msm.data.source import open_source
from megatron_msm.errors import ConfigError
from megatron_msm.formats.manifest import dataset_file, read_manifest
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_provenance_rows


def rows_of_sequence(prefix: Path, plan: PackPlan, index: int) -> list[str]:
    """Return what packed sequence `index` holds and where it comes from, one line each.

    Raises:
        ConfigError: There is no such sequence.
    """
    if not 0 <= index < len(plan):
        raise ConfigError(
            f"--show {index}: there are {len(plan)} packed sequences. Give a number from 0 to "
            f"{len(plan) - 1}."
        )
    here = plan.segments_of(index)
    rows = plan.segments.document[here].tolist()
    sources = read_provenance_rows(dataset_file(prefix, PROVENANCE_SUFFIX), rows)
    starts, lengths = plan.segments.start[here], plan.segments.length[here]
    return [
        f"  row {row} positions {start}-{start + length - 1}  {source.source_file}:"
        f"{source.source_line}  {', '.join(source.clause_ids or ())}".rstrip()
        for row, start, length, source in zip(rows, starts, lengths, sources, strict=True)
    ]


class Packed(NamedTuple):
    """A stored plan."""

    path: Path
    plan: PackPlan
    num_rows: int
    seconds: float
    """For planning, without reading and writing."""

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "path": str(self.path),
            "rows": self.num_rows,
            "sequences": len(self.plan),
            "seq_length": self.plan.capacity,
            "fill": self.plan.fill,
            "align_cost": self.plan.align_cost,
            "most_documents": self.plan.most_documents,
            "seconds": self.seconds,
        }


def pack_dataset(prefix: Path, seq_length: int, packing: PackingConfig) -> Packed:
    """Plan a dataset's packed sequences and write the plan, replacing one that is there.

    Raises:
        DataFormatError: The dataset is not finished, or cannot be packed at this length.
        ConfigError: The settings do not fit the dataset.
    """
    manifest = read_manifest(prefix)
    path = plan_path(prefix, manifest.sha256, seq_length, packing)
    path.unlink(missing_ok=True)
    started = time.perf_counter()
    source = open_source(prefix, seq_length=seq_length, packing=packing)
    seconds = time.perf_counter() - started
    save_plan(path, source.plan, manifest.sha256, packing)
    return Packed(path, source.plan, len(source.lengths), seconds)


def describe_packed(packed: Packed) -> list[str]:
    """Return a packing plan in words, one line each."""
    plan = packed.plan
    lines = [
        f"{packed.path}: {packed.num_rows:,} rows in {len(plan):,} packed sequences of "
        f"{plan.capacity} positions, planned in {packed.seconds:.2f} s",
        f"  {plan.fill:.3%} full, at most {plan.most_documents} documents a sequence",
    ]
    if plan.align > 1:
        lines.append(
            f"  {plan.align_cost:.3%} of all positions are padding to multiples of {plan.align}"
        )
    return lines
