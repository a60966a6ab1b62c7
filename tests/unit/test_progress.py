"""One interface of progress: lines where stderr is piped, a bar on a terminal."""

import io
import time

import pytest
from rich.console import Console

from megatron_msm.progress import show_progress


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


def test_work_without_a_measure_says_that_it_goes_on_and_takes_no_time_of_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("megatron_msm.progress.LINE_EVERY_S", 0.05)
    err = io.StringIO()
    with show_progress(Console(file=err)) as progress:
        progress.start("scoring", 100, unit="")
        with progress.waiting("loading [model]"):
            time.sleep(0.5)
        time.sleep(0.1)
        progress.reach(50, 100)
    *waits, scored = err.getvalue().splitlines()
    assert waits[0] == "loading [model]: 0 s so far"
    assert len(waits) >= 3
    assert scored == "scoring: 50 of 100, about 0 s left"


def test_a_bar_comes_back_after_work_without_a_measure() -> None:
    screen = io.StringIO()
    with show_progress(Console(file=screen, force_terminal=True, width=100)) as progress:
        progress.start("scoring", 4, unit="rows")
        progress.advance(1)
        with progress.waiting("loading [model]"):
            time.sleep(0.3)
            assert "loading [model]" in screen.getvalue()
        progress.advance(3)
    assert "4/4" in screen.getvalue()
