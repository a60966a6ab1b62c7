"""A torch profiler trace of a few steps."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from megatron_msm.config.logging import ProfileConfig


class StepProfiler:
    """Records the steps of the window on the chosen ranks, and writes a trace after the last.

    Args:
        config: The window; None records nothing.
        path: The trace file.
    """

    def __init__(self, config: ProfileConfig | None, path: Path) -> None:
        self._config, self._path = config, path
        self._running: torch.profiler.profile | None = None

    def after_step(self, num_done: int) -> None:
        """Begin or end the window where it is time."""
        config = self._config
        if config is None:
            return
        if num_done + 1 == config.first_step:
            self.start()
        elif self._running is not None and num_done + 1 == config.first_step + config.num_steps:
            self.write()

    def start(self) -> None:
        """Record from now on."""
        self._running = torch.profiler.profile(record_shapes=True)
        self._running.start()

    def write(self) -> None:
        """End, and write what was recorded."""
        if self._running is None:
            return
        self._running.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._running.export_chrome_trace(str(self._path))
        self._running = None


@contextlib.contextmanager
def profiled(
    config: ProfileConfig | None, out: Path, phase: str, rank: int
) -> Iterator[StepProfiler]:
    """Yield the profiler of a phase; a window that the phase ends in is written too."""
    is_chosen = config is not None and rank in config.ranks
    profiler = StepProfiler(
        config if is_chosen else None, out / "profile" / f"{phase}_rank_{rank}.json"
    )
    if config is not None and is_chosen and config.first_step == 1:
        profiler.start()
    yield profiler
    profiler.write()
