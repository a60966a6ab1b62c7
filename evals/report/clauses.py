"""Clauses of a spec: how much of the training data names each, beside what the evaluations found.

The datasets of a model's lineage are looked for where they were; each row of theirs carries the
clauses that it was written for. A row of several clauses counts for each of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.report.comparison import Evaluation, Line
from evals.report.training import training_of
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import ModelRecord
from megatron_msm.formats.manifest import dataset_file, read_manifest
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, ClauseCount, count_clauses


@dataclass(frozen=True)
class ClauseAmount:
    """What the data of one stage has of a clause."""

    arm: str
    stage: str
    clause: str
    rows: int
    tokens: int


@dataclass(frozen=True)
class ClauseTable:
    """One evaluation by clause, with the data that each arm was trained on."""

    evaluation: Evaluation
    clauses: tuple[str, ...]
    amounts: tuple[ClauseAmount, ...]

    def lines(self, clause: str) -> list[tuple[str, Line]]:
        """Return the arms with their lines of a clause."""
        return list(zip(self.evaluation.arms, self.evaluation.groups[clause], strict=True))

    def amount(self, arm: str, clause: str) -> ClauseAmount | None:
        """Return what all stages of an arm have of a clause together; None where nothing is."""
        found = [one for one in self.amounts if (one.arm, one.clause) == (arm, clause)]
        if not found:
            return None
        stages = " + ".join(one.stage for one in found)
        return ClauseAmount(
            arm, stages, clause, sum(one.rows for one in found), sum(one.tokens for one in found)
        )


@dataclass(frozen=True)
class TrainingClauses:
    """The clauses of all datasets that the evaluated models were trained on."""

    by_dataset: Mapping[str, Mapping[str, ClauseCount]]
    """By the dataset's hash."""
    unread: tuple[str, ...]
    """Why the clauses of a dataset are not counted."""


def read_clauses(models: Sequence[ModelRecord]) -> TrainingClauses:
    """Count the clauses of the models' training data, where it still is what was trained on."""
    counted: dict[str, Mapping[str, ClauseCount]] = {}
    unread: dict[str, str] = {}
    for model in models:
        for stage in training_of(model).stages or ():
            for prefix, sha256 in stage.data.items():
                if sha256 in counted or sha256 in unread:
                    continue
                try:
                    counted[sha256] = _count(Path(prefix), sha256)
                except DataFormatError as error:
                    unread[sha256] = str(error)
    return TrainingClauses(counted, tuple(unread.values()))


def clause_tables(
    evaluations: Sequence[Evaluation], training: TrainingClauses
) -> list[ClauseTable]:
    """Return a table for each evaluation whose groups are clauses of the arms' training data."""
    tables = []
    for evaluation in evaluations:
        groups = [name for name in evaluation.groups if name is not None]
        amounts = [
            amount
            for arm, results in evaluation.arms.items()
            for amount in _amounts(arm, results[0].model, training)
            if amount.clause in groups
        ]
        if amounts:
            tables.append(ClauseTable(evaluation, tuple(groups), tuple(amounts)))
    return tables


def _amounts(arm: str, model: ModelRecord, training: TrainingClauses) -> list[ClauseAmount]:
    found = []
    for stage in training_of(model).stages or ():
        rows, tokens = Counter[str](), Counter[str]()
        for sha256 in stage.data.values():
            for clause, count in training.by_dataset.get(sha256, {}).items():
                rows[clause] += count.rows
                tokens[clause] += count.tokens
        found += [
            ClauseAmount(arm, stage.name, clause, number, tokens[clause])
            for clause, number in rows.items()
        ]
    return found


def _count(prefix: Path, sha256: str) -> Mapping[str, ClauseCount]:
    if read_manifest(prefix).sha256 != sha256:
        raise DataFormatError(f"{prefix}: is another dataset now than the one that was trained on.")
    return count_clauses(dataset_file(prefix, PROVENANCE_SUFFIX))
