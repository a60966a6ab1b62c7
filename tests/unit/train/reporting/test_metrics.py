"""metrics.jsonl as it is written: after a kill or a resume no step is missing, double or torn."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from megatron_msm.formats.metrics_file import METRICS_FILE
from megatron_msm.train.reporting.metrics import MetricsWriter
from tests.unit.train.reporting.rows import row_of


class Kept:
    """A tracker that keeps what it was told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.num_flushed = 0
        self.is_closed = False

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def flush(self) -> None:
        self.num_flushed = len(self.rows)

    def close(self) -> None:
        self.is_closed = True


def writer(folder: Path, phase: str, first_step: int, *trackers: Kept) -> MetricsWriter:
    return MetricsWriter(folder, phase=phase, first_step=first_step, trackers=list(trackers))


def steps_of(folder: Path) -> list[tuple[str, int]]:
    lines = (folder / METRICS_FILE).read_bytes().splitlines()
    return [(row["phase"], row["step"]) for row in map(orjson.loads, lines)]


def write_steps(folder: Path, phase: str, first_step: int, last: int) -> None:
    with writer(folder, phase, first_step) as metrics:
        for step in range(first_step + 1, last + 1):
            metrics.write(row_of(step, phase=phase))


def test_steps_that_are_made_again_are_in_the_file_once(tmp_path: Path) -> None:
    write_steps(tmp_path, "midtrain", 0, 3)
    write_steps(tmp_path, "sft", 0, 4)
    write_steps(tmp_path, "sft", 2, 5)
    assert steps_of(tmp_path) == [
        *(("midtrain", step) for step in (1, 2, 3)),
        *(("sft", step) for step in (1, 2, 3, 4, 5)),
    ]


@pytest.mark.parametrize("num_bytes_left", [1, 20])
def test_a_line_that_a_kill_tore_is_dropped(tmp_path: Path, num_bytes_left: int) -> None:
    write_steps(tmp_path, "sft", 0, 3)
    path = tmp_path / METRICS_FILE
    *lines, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + last[:num_bytes_left])
    write_steps(tmp_path, "sft", 2, 3)
    assert steps_of(tmp_path) == [("sft", 1), ("sft", 2), ("sft", 3)]


def test_a_validation_that_was_missed_completes_the_last_line(tmp_path: Path) -> None:
    write_steps(tmp_path, "sft", 0, 2)
    kept = Kept()
    with writer(tmp_path, "sft", 2, kept) as metrics:
        lacked = [metrics.lacks_validation]
        metrics.add_to_last({"validation/chats_nats": 1.5})
        lacked.append(metrics.lacks_validation)
        metrics.write(row_of(3))
        metrics.flush_to_disk()
    assert lacked == [True, False]
    rows = [orjson.loads(line) for line in (tmp_path / METRICS_FILE).read_bytes().splitlines()]
    assert [row.get("validation/chats_nats") for row in rows] == [None, 1.5, None]
    assert kept.rows[0] == {"phase": "sft", "step": 2, "validation/chats_nats": 1.5}
    assert kept.rows[1]["step"] == 3
    assert (kept.num_flushed, kept.is_closed) == (2, True)
