"""`msm prep rows`: which rows an optimizer step of a run saw, and where they come from."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from megatron_msm.config.load import load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.data.step_rows import SeenRow, rows_of_step
from megatron_msm.errors import ConfigError
from megatron_msm.formats.json_types import JsonRow
from megatron_msm.formats.manifest import dataset_file
from megatron_msm.formats.provenance import (
    PROVENANCE_SUFFIX,
    ProvenanceRow,
    read_provenance_rows,
)
from megatron_msm.train.checks import checked_run
from megatron_msm.train.resolved_run import ResolvedPhase


class StepRow(NamedTuple):
    """One row that a step saw."""

    prefix: Path
    seen: SeenRow
    provenance: ProvenanceRow

    def as_json(self) -> JsonRow:
        """Return what `--json` prints."""
        return {
            "prefix": str(self.prefix),
            "sequence": self.seen.sequence,
            "row": self.seen.piece.row,
            "start": self.seen.piece.start,
            "positions": self.seen.piece.length,
            "provenance": {**self.provenance._asdict(), "extra": dict(self.provenance.extra)},
        }


def read_step(run_file: Path, overrides: list[str], *, phase: str, step: int) -> list[StepRow]:
    """Return the rows that optimizer step `step` (counted from 1, as in metrics.jsonl) sees.

    It follows from the run file, the seed and the datasets alone; nothing has to be trained.

    Raises:
        ConfigError: The run has no such phase or step, or is wrong itself.
    """
    resolved = _phase(load_config(run_file, RunConfig, overrides), run_file, phase)
    if not 1 <= step <= resolved.num_steps:
        raise ConfigError(
            f"--step {step}: phase {phase!r} of {run_file} has steps 1 to {resolved.num_steps}. "
            "Give one of those, as metrics.jsonl counts them."
        )
    batch = resolved.config.global_batch_size
    seen = rows_of_step(resolved.blend, step=step - 1, global_batch_size=batch)
    return _with_provenance(resolved, seen)


def describe_step(rows: list[StepRow]) -> Iterator[str]:
    """Yield a step's rows in words, one line each."""
    for prefix, seen, source in rows:
        piece = seen.piece
        facts = {
            "id": source.id,
            "spec": source.spec_id,
            "clauses": ", ".join(source.clause_ids or ()),
            "domain": source.domain,
            "type": source.doc_type,
        }
        said = "  ".join(f"{name} {value}" for name, value in facts.items() if value)
        where = f"{piece.start}-{piece.start + piece.length - 1}"
        yield (
            f"sequence {seen.sequence}  {prefix} row {piece.row} positions {where}  "
            f"{source.source_file}:{source.source_line}  {said}".rstrip()
        )


def _phase(config: RunConfig, run_file: Path, name: str) -> ResolvedPhase:
    names = [phase.name for phase in config.phases]
    if name not in names:
        raise ConfigError(
            f"--phase {name}: {run_file} has the phases {', '.join(names)}. Give one of those."
        )
    return checked_run(config).phases[names.index(name)]


def _with_provenance(resolved: ResolvedPhase, seen: list[SeenRow]) -> list[StepRow]:
    prefixes = resolved.dataset.prefixes
    known: dict[tuple[int, int], ProvenanceRow] = {}
    for source, prefix in enumerate(prefixes):
        rows = [row.piece.row for row in seen if row.piece.source == source]
        found = read_provenance_rows(dataset_file(prefix, PROVENANCE_SUFFIX), rows)
        known |= {(source, row): origin for row, origin in zip(rows, found, strict=True)}
    return [
        StepRow(prefixes[row.piece.source], row, known[row.piece.source, row.piece.row])
        for row in seen
    ]
