"""Steps that must not stay in the weights: not finite ones, and by option loss spikes."""

from typing import TypedDict

from megatron_msm.data.step_rows import SeenRow, rows_of_step
from megatron_msm.errors import DivergedError
from megatron_msm.formats.checkpoint_folder import CheckpointState
from megatron_msm.formats.manifest import dataset_file
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_provenance_row
from megatron_msm.train.checkpoints.resume import PhaseStart
from megatron_msm.train.resolved_run import ResolvedPhase
from megatron_msm.train.steps.step import StepResult

_ROWS_SHOWN = 8


class GuardMemory(TypedDict):
    """The fields of `CheckpointState` in which a checkpoint keeps what a guard remembers."""

    skipped_steps: int
    skipped_in_a_row: int
    recent_losses: tuple[float, ...]
    rollbacks: tuple[tuple[int, int], ...]


class StepGuard:
    """Judges the steps of a phase; what it remembers is in the checkpoints, and goes on there."""

    def __init__(self, start: PhaseStart) -> None:
        self._phase = start.phase
        self.skipped_steps = 0
        self.in_a_row = 0
        self._losses: tuple[float, ...] = ()
        self._rollbacks: tuple[tuple[int, int], ...] = ()
        if start.is_resumed:
            self.restore(start.origin.state)

    def restore(self, state: CheckpointState) -> None:
        """Remember what a checkpoint's run did."""
        self.skipped_steps = state.skipped_steps
        self.in_a_row = state.skipped_in_a_row
        self._losses = state.recent_losses
        self._rollbacks = state.rollbacks

    def memory(self) -> GuardMemory:
        """Return the fields of `CheckpointState` that `restore` reads."""
        return {
            "skipped_steps": self.skipped_steps,
            "skipped_in_a_row": self.in_a_row,
            "recent_losses": self._losses,
            "rollbacks": self._rollbacks,
        }

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

    def step_to_return_to(self, step: int, result: StepResult) -> int | None:
        """Return the step of the checkpoint to go back to when this step, from 0, is a spike.

        Raises:
            DivergedError: It is one spike too many; the same on all ranks.
        """
        config = self._phase.config.loss_spike
        if config is None or not result.is_finite:
            return None
        before = self._losses
        self._losses = (*before, result.loss_nats)[-config.window_steps :]
        interval = self._phase.config.checkpoint.save_interval_steps
        target = step // interval * interval
        if len(before) < config.window_steps or target == 0:
            return None
        if result.loss_nats <= sum(before) / len(before) + config.above_nats:
            return None
        if len(self._rollbacks) >= config.max_rollbacks:
            mean = sum(before) / len(before)
            raise DivergedError(
                f"{self._phase.config.name}: step {step + 1} is a loss spike "
                f"({result.loss_nats:.3f} after a mean of {mean:.3f}), and {config.max_rollbacks} "
                "were gone back from already. Lower the learning rate, or look at its rows:\n"
                + "\n".join(rows_in_words(self._phase, step))
            )
        return target

    def roll_back(self, state: CheckpointState, step: int) -> None:
        """Remember that the weights are those of `state` again, after a spike in `step`, from 0."""
        rollbacks = (*self._rollbacks, (state.iteration, step + 1))
        self.restore(state)
        self._rollbacks = rollbacks  # the checkpoint does not know of those since it


def rows_in_words(phase: ResolvedPhase, step: int) -> list[str]:
    """Return the first rows of a step, counted from 0, with the input lines they come from."""
    batch = phase.config.global_batch_size
    seen = rows_of_step(phase.blend, step=step, global_batch_size=batch)
    lines = [f"  {_in_words(phase, row)}" for row in seen[:_ROWS_SHOWN]]
    if len(seen) > _ROWS_SHOWN:
        lines.append(f"  and {len(seen) - _ROWS_SHOWN} more")
    return lines


def _in_words(phase: ResolvedPhase, seen: SeenRow) -> str:
    prefix = phase.dataset.prefixes[seen.piece.source]
    source = read_provenance_row(dataset_file(prefix, PROVENANCE_SUFFIX), seen.piece.row)
    return f"{prefix} row {seen.piece.row}: {source.source_file} line {source.source_line}"
