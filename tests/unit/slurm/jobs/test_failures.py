"""Causes read from the last lines of a log."""

import signal

import pytest

from slurm.jobs.failures import diagnose

LOGS = {
    "gpu-memory": [
        "Traceback (most recent call last):",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.2 GiB",
    ],
    "network": [
        "[rank3]: torch.distributed.DistBackendError: NCCL error in: x.cpp:268, remote process "
        "exited or there was a network error"
    ],
    "disk-full": ["OSError: [Errno 28] No space left on device: '/s/iter_0000100/x.distcp'"],
    "host-memory": ["slurmstepd: error: Detected 1 oom_kill event in StepId=4.0"],
    "threshold": ["written: health.html", "not met: attribution>=0.65 (plain: 41.0%)"],
    "python": ["  File 'a.py', line 3", "KeyError: 'embedding.word'", ""],
    "unknown": ["something", "last words"],
}


@pytest.mark.parametrize("kind", LOGS, ids=str)
def test_cause_and_remedy_are_named(kind: str) -> None:
    failure = diagnose(1, LOGS[kind])
    assert failure.kind == kind
    assert failure.reason
    assert failure.remedy


def test_a_peers_own_reason_comes_before_the_lost_connection() -> None:
    log = [*LOGS["network"], *LOGS["gpu-memory"]]
    assert diagnose(1, log).kind == "gpu-memory"


def test_only_what_a_new_start_can_mend_is_retried() -> None:
    retried = {kind for kind, log in LOGS.items() if diagnose(1, log).is_retried}
    assert retried == {"network"}
    assert diagnose(75, []).is_retried
    spent = diagnose(75, ["error: max_tokens of 9 is reached: 12 used in 3 calls. Raise it"])
    assert not spent.is_retried
    assert "budget" in spent.remedy
    away = diagnose(75, ["error: documents: 3 of 9 calls were not answered"])
    assert away.is_retried
    assert "3 of 9 calls" in away.reason
    assert not diagnose(2, ["error: parallel.tensor: 3"]).is_retried
    assert diagnose(-signal.SIGUSR2, [], was_signalled=True).is_retried
    assert not diagnose(-signal.SIGUSR2, []).is_retried
    assert diagnose(-signal.SIGKILL, ["step 5"]).kind == "killed"


def test_a_message_of_several_lines_is_kept_whole() -> None:
    log = ["starting", "error: 1 line cannot become a row:", "  bad.jsonl:1 empty text", ""]
    assert diagnose(2, log).reason == "error: 1 line cannot become a row: bad.jsonl:1 empty text"
