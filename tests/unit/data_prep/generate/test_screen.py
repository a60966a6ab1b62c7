"""What a run says of its calls while it asks."""

import io
import time

import pytest
from rich.console import Console

from data_prep.generate.screen import CallProgress
from megatron_msm.llm.call import Answer, Call, Finish, Reply, Usage
from megatron_msm.progress import show_progress


def answer(finish: Finish | None = "stop", *, cost_usd: float | None = 0.25) -> Answer:
    call = Call("documents/a", "documents", "Write.")
    if finish is None:
        return Answer(call, None, failure="no answer in time")
    return Answer(call, Reply("text", finish, Usage(10, 5), "m"), cost_usd=cost_usd)


def test_every_step_ends_in_a_line_with_its_own_tokens_cost_and_endings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    err, now_s = io.StringIO(), 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with show_progress(Console(file=err)) as progress:
        calls = CallProgress(progress)
        calls.begin("domains", 1)
        now_s += 2
        calls.answered(answer())
        calls.begin("documents", 2)
        now_s += 1
        calls.answered(answer("length"))
        calls.begin("documents", 1)  # asked again for what was cut off
        now_s += 1
        calls.answered(answer(None))
        calls.answered(answer(cost_usd=None))
    assert err.getvalue().splitlines() == [
        "domains: 1 of 1 calls, 0.5 calls/s, 15 tokens  $0.25, about 0 s left",
        "documents: 3 of 3 calls, 1.5 calls/s, 30 tokens  price unknown  1 cut off  1 failed, "
        "about 0 s left",
    ]
