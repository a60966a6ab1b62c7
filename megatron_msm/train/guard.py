"""Counting steps that changed nothing, and stopping when there are too many in a row."""

from megatron_msm.data.step_rows import SeenRow, rows_of_step
from megatron_msm.errors import DivergedError
from megatron_msm.formats.manifest import dataset_file
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_provenance_row
from megatron_msm.train.preflight import PhasePlan
from megatron_msm.train.resume import PhaseStart
from megatron_msm.train.step import StepResult

_ROWS_SHOWN = 8


class NonFiniteGuard:
    """Counts the skipped steps of a phase; the counts go on where the checkpoint's are."""

    def __init__(self, start: PhaseStart) -> None:
        self._phase = start.phase
        self.skipped_steps = start.origin.state.skipped_steps if start.is_resumed else 0
        self.in_a_row = start.origin.state.skipped_in_a_row if start.is_resumed else 0

    def count(self, step: int, result: StepResult) -> None:
        """Count a step, given from 0.

        Raises:
            DivergedError: It is one skipped step too many; the same on all ranks.
        """
        if result.is_finite:
            self.in_a_row = 0
            return
        self.skipped_steps += 1
        self.in_a_row += 1
        limit = self._phase.config.optimizer.max_skipped_in_a_row
        if self.in_a_row >= limit:
            raise DivergedError(
                f"{self._phase.config.name}: loss or gradient was not finite in {limit} steps in a "
                f"row, the last of them step {step + 1} (loss {result.loss_nats}, gradient norm "
                f"{result.grad_norm}). Lower the learning rate, or look at its rows:\n"
                + "\n".join(rows_in_words(self._phase, step))
            )


def rows_in_words(phase: PhasePlan, step: int) -> list[str]:
    """Return the first rows of a step, counted from 0, with the input lines they come from."""
    batch = phase.config.global_batch_size
    seen = rows_of_step(phase.blend, step=step, global_batch_size=batch)
    lines = [f"  {_in_words(phase, row)}" for row in seen[:_ROWS_SHOWN]]
    if len(seen) > _ROWS_SHOWN:
        lines.append(f"  and {len(seen) - _ROWS_SHOWN} more")
    return lines


def _in_words(phase: PhasePlan, seen: SeenRow) -> str:
    prefix = phase.dataset.prefixes[seen.piece.source]
    source = read_provenance_row(dataset_file(prefix, PROVENANCE_SUFFIX), seen.piece.row)
    return f"{prefix} row {seen.piece.row}: {source.source_file} line {source.source_line}"
