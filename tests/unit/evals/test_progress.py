import io
import time

import pytest
from rich.console import Console

from evals.progress import progress_on


def test_a_piped_work_says_every_ten_seconds_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 12.0, 15.0, 40.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    err = io.StringIO()
    with progress_on(Console(file=err), "[bold]values") as shown:
        for done in (1, 2, 3, 4):
            shown.reach(done, 20)
    assert err.getvalue().splitlines() == [
        "[bold]values: 2 of 20, about 2 min left",
        "[bold]values: 4 of 20, about 3 min left",
    ]
