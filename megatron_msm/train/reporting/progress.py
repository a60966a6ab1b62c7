"""The training progress line: a live bar on a terminal, plain lines in a log file."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from megatron_msm.formats.metrics_file import VALIDATION, StepMetrics

# Seconds between lines when the output is not a terminal.
_PLAIN_INTERVAL_S = 15.0


class ProgressBar:
    """Shows step, loss, learning rate, gradient norm, tokens/s, validation and time left."""

    def __init__(self, phase: str, num_steps: int, first_step: int, *, shown: bool) -> None:
        self._shown = shown
        self._num_steps = num_steps
        self._phase = phase
        self._first_step = first_step
        self._started = time.monotonic()
        self._last_line = 0.0
        self._validation = ""
        console = Console(file=sys.stderr)
        self._live = shown and console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._task = self._bar.add_task(phase, total=num_steps, completed=first_step, numbers="")

    def advance(self, row: StepMetrics) -> None:
        """Show the numbers of a finished step."""
        loss = "not finite" if row.loss is None else f"{row.loss:.4f}"
        grad = "not finite" if row.grad_norm is None else f"{row.grad_norm:.2f}"
        skipped = f"  {row.skipped_steps} steps skipped" if row.skipped_steps else ""
        numbers = (
            f"loss {loss}  lr {row.lr:.2e}  grad {grad}  {row.tokens_per_s:,.0f} tokens/s "
            f"({row.loss_tokens_per_s:,.0f} with loss){skipped}"
        )
        if self._live:
            self._bar.update(self._task, completed=row.step, numbers=numbers)
        elif self._shown and self._is_due(row.step):
            left = self._seconds_left(row.step)
            sys.stderr.write(
                f"{self._phase} {row.step}/{self._num_steps}  {numbers}  {left:.0f} s left\n"
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

    def note(self, text: str) -> None:
        """Show what happens between steps."""
        if self._live:
            self._bar.update(self._task, numbers=text)

    def _is_due(self, step: int) -> bool:
        now = time.monotonic()
        due = step == self._num_steps or now - self._last_line >= _PLAIN_INTERVAL_S
        if due:
            self._last_line = now
        return due

    def _seconds_left(self, step: int) -> float:
        per_step = (time.monotonic() - self._started) / max(step - self._first_step, 1)
        return per_step * (self._num_steps - step)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
