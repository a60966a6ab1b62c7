"""What a forked writer tells the rank: one value of any size, and nothing when it died."""

import multiprocessing
import os
import queue

import pytest
from megatron.core.dist_checkpointing.strategies import filesystem_async

from megatron_msm.runtime.writer_results import WriterResult, use_for_next_save

LARGE = {"__0_0.distcp": list(range(300_000))}
"""More than a pipe holds: a writer that nobody reads from meanwhile must not hang."""


def _write(result: WriterResult) -> None:
    result.put(LARGE)


def _die(result: WriterResult) -> None:
    os._exit(1)


def fork(function: object, result: WriterResult) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=function, args=(result,))  # type: ignore[arg-type]
    process.start()
    process.join(60)
    return process.exitcode


def test_a_large_value_comes_from_a_forked_process() -> None:
    result = WriterResult()
    assert fork(_write, result) == 0
    assert result.get_nowait() == LARGE


def test_a_process_that_died_has_left_nothing() -> None:
    result = WriterResult()
    assert fork(_die, result) == 1
    with pytest.raises(queue.Empty):
        result.get_nowait()


def test_each_save_of_megatron_core_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem_async, "_results_queue", None)
    use_for_next_save()
    first = filesystem_async._get_write_results_queue()
    assert isinstance(first, WriterResult)
    first.put("of an earlier save")
    use_for_next_save()
    with pytest.raises(queue.Empty):
        filesystem_async._get_write_results_queue().get_nowait()
