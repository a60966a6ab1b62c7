"""Writing metrics.jsonl, a line a step, and showing the same numbers to the trackers."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from megatron_msm.formats.files import write_bytes_atomic
from megatron_msm.formats.metrics_file import METRICS_FILE, VALIDATION, StepMetrics


class Tracker(Protocol):
    """Something else that shows the numbers; it may drop what it has seen before a kill."""

    def log(self, row: dict[str, Any]) -> None:
        """Show one line."""

    def flush(self) -> None:
        """Make what was logged survive a crash."""

    def close(self) -> None:
        """End."""


class MetricsWriter:
    """Appends to metrics.jsonl and the trackers; a resumed run goes on without gaps or doubles."""

    def __init__(
        self, run_folder: Path, *, phase: str, first_step: int, trackers: list[Tracker]
    ) -> None:
        """Drop lines of `phase` after `first_step`: the steps are about to be made again."""
        self._path = run_folder / METRICS_FILE
        _keep_lines_before(self._path, phase, first_step)
        self._file = self._path.open("ab")
        self._trackers = trackers

    def write(self, metrics: StepMetrics) -> None:
        """Record one step."""
        self._file.write(orjson.dumps(metrics.row(), option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()
        for tracker in self._trackers:
            tracker.log(metrics.numbers())

    @property
    def lacks_validation(self) -> bool:
        """The last line has no validation: the run was stopped in the midst of it."""
        lines = self._path.read_bytes().splitlines()
        return bool(lines) and not any(
            name.startswith(VALIDATION) for name in orjson.loads(lines[-1])
        )

    def add_to_last(self, parts: dict[str, float]) -> None:
        """Complete the last line."""
        *lines, last = self._path.read_bytes().splitlines(keepends=True)
        row = {**orjson.loads(last), **parts}
        self._file.close()
        last = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        write_bytes_atomic(self._path, b"".join([*lines, last]))
        self._file = self._path.open("ab")
        for tracker in self._trackers:
            tracker.log({"phase": row["phase"], "step": row["step"], **parts})

    def flush_to_disk(self) -> None:
        """Make everything written so far survive a crash; called before each checkpoint."""
        os.fsync(self._file.fileno())
        for tracker in self._trackers:
            tracker.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _keep_lines_before(path: Path, phase: str, first_step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break  # torn by a kill
        row = orjson.loads(line)
        if row["phase"] != phase or row["step"] <= first_step:
            kept.append(line)
    write_bytes_atomic(path, b"".join(kept))
