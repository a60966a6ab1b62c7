"""What the progress of a phase shows of a step besides its number."""

from megatron_msm.formats.metrics_file import VALIDATION, StepMetrics
from megatron_msm.progress import Progress


class StepProgress:
    """Shows loss, learning rate, gradient norm, tokens/s and the newest validation of each step."""

    def __init__(self, progress: Progress, phase: str, *, num_steps: int, first_step: int) -> None:
        self._progress = progress
        self._num_steps = num_steps
        self._first_step = first_step
        self._validation = ""
        progress.start(phase, num_steps, unit="steps", done=first_step)

    def advance(self, row: StepMetrics) -> None:
        """Show the numbers of a finished step."""
        loss = "not finite" if row.loss is None else f"{row.loss:.4f}"
        grad = "not finite" if row.grad_norm is None else f"{row.grad_norm:.2f}"
        skipped = f"  {row.skipped_steps} steps skipped" if row.skipped_steps else ""
        self._progress.advance(
            1,
            numbers=f"loss {loss}  lr {row.lr:.2e}  grad {grad}  {row.tokens_per_s:,.0f} tokens/s "
            f"({row.loss_tokens_per_s:,.0f} with loss){self._newest_validation(row)}{skipped}",
            # A log always has the loss that a phase began and ended with.
            always=row.step in (self._first_step + 1, self._num_steps),
        )

    def _newest_validation(self, row: StepMetrics) -> str:
        found = {k: v for k, v in row.parts.items() if k.startswith(VALIDATION)}
        if found:
            losses = ", ".join(
                f"{name.removeprefix(VALIDATION).removesuffix('_nats')} {loss:.4f}"
                for name, loss in found.items()
            )
            self._validation = f"  validation {losses}"
        return self._validation
