"""What the progress of a phase shows of its steps."""

import io
import time

import pytest
from rich.console import Console

from megatron_msm.progress import show_progress
from megatron_msm.train.reporting.progress import StepProgress
from tests.unit.train.reporting.rows import row_of


def test_a_log_of_a_phase_has_its_first_and_last_step_and_the_newest_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    err, now_s = io.StringIO(), 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with show_progress(Console(file=err)) as progress:
        steps = StepProgress(progress, "sft", num_steps=9, first_step=4)
        for step in range(5, 10):
            now_s += 1
            parts = {"validation/chats_nats": 1.5} if step == 8 else {}
            steps.advance(row_of(step, parts))
    first, last = err.getvalue().splitlines()
    assert first.startswith("sft: 5 of 9 steps, 1.0 steps/s, loss 2.0000  ")
    assert "validation" not in first
    assert last.startswith("sft: 9 of 9 steps, 1.0 steps/s, loss 2.0000  ")
    assert "validation chats 1.5000" in last
    assert last.endswith("about 0 s left")
