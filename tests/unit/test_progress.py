"""One interface of progress: lines where stderr is piped, a bar on a terminal."""

import io
import time

import pytest
from rich.console import Console

from megatron_msm.formats.metrics_file import StepMetrics
from megatron_msm.progress import show_progress
from megatron_msm.train.reporting.progress import StepProgress


class Clock:
    now_s = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now_s)
    return clock


def test_bytes_of_a_known_total_are_told_with_speed_rows_and_time_left(clock: Clock) -> None:
    err = io.StringIO()
    with show_progress(Console(file=err)) as progress:
        progress.start("docs", 800_000_000)
        for _ in range(4):
            clock.now_s += 5
            progress.advance(100_000_000, rows=1_000)
    assert err.getvalue().splitlines() == [
        "docs: 200 of 800 MB, 20.0 MB/s, 200 rows/s, about 30 s left",
        "docs: 400 of 800 MB, 20.0 MB/s, 200 rows/s, about 20 s left",
    ]


def test_a_step_that_goes_on_from_earlier_work_counts_only_its_own_speed(clock: Clock) -> None:
    err = io.StringIO()
    with show_progress(Console(file=err)) as progress:
        progress.start("copying", 40_000, unit="rows", done=20_000)
        clock.now_s += 20
        progress.advance(200)
        progress.start("reading", None)
        clock.now_s += 10
        progress.advance(1_000_000)
    assert err.getvalue().splitlines() == [
        "copying: 20,200 of 40,000 rows, 10.0 rows/s, about 33 min left",
        "reading: 1 MB, 0.1 MB/s",
    ]


def test_a_terminal_gets_a_bar_with_the_name_as_it_is_written() -> None:
    screen = io.StringIO()
    with show_progress(Console(file=screen, force_terminal=True, width=100)) as progress:
        progress.start("[bold]docs", 3, unit="rows")
        progress.advance(3, numbers="all [of] them")
    assert "[bold]docs" in screen.getvalue()
    assert "3/3" in screen.getvalue()
    assert "all [of] them" in screen.getvalue()


def row_of(step: int, parts: dict[str, float]) -> StepMetrics:
    return StepMetrics(
        phase="sft",
        step=step,
        loss=2.0,
        lr=1e-5,
        grad_norm=1.0,
        skipped_steps=0,
        loss_tokens=10,
        processed_tokens=20,
        tokens_per_s=20.0,
        loss_tokens_per_s=10.0,
        tflops_per_s=0.1,
        peak_gib=1.0,
        step_s=1.0,
        data_s=0.1,
        forward_backward_s=0.8,
        optimizer_s=0.1,
        parts=parts,
    )


def test_a_log_of_a_phase_has_its_first_and_last_step_and_the_newest_validation(
    clock: Clock,
) -> None:
    err = io.StringIO()
    with show_progress(Console(file=err)) as progress:
        steps = StepProgress(progress, "sft", num_steps=9, first_step=4)
        for step in range(5, 10):
            clock.now_s += 1
            parts = {"validation/chats_nats": 1.5} if step == 8 else {}
            steps.advance(row_of(step, parts))
    first, last = err.getvalue().splitlines()
    assert first.startswith("sft: 5 of 9 steps, 1.0 steps/s, loss 2.0000  ")
    assert "validation" not in first
    assert last.startswith("sft: 9 of 9 steps, 1.0 steps/s, loss 2.0000  ")
    assert "validation chats 1.5000" in last
    assert last.endswith("about 0 s left")
