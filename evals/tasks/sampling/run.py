"""Runs an Inspect task on the judged model, and goes on where an earlier run was killed.

Inspect writes each reply with its scores to a log as it is done. The log's folder is named by the
protocol and by the content hash of the weights, so it can hold no reply of another checkpoint or
another way of asking; what it holds already is not asked again.

    OUT/logs/NAME-<hash>/*.eval        opens in `inspect view`
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path

from inspect_ai import Task, eval_set
from inspect_ai.log import EvalLog, EvalSample, read_eval_log_samples

from evals.judging.judge import Judge
from evals.tasks.sampling.asked import Asked
from evals.tasks.sampling.progress import ON_SCORED
from evals.tasks.task import Progress
from megatron_msm.errors import SamplingError
from megatron_msm.formats.eval_result import Protocol, Row
from megatron_msm.formats.files import sha256_of_json


def run_task(
    task: Task,
    asked: Asked,
    judge: Judge,
    *,
    name: str,
    protocol: Protocol,
    logs: Path,
    log_key: str,
    concurrency: int,
    on_progress: Progress,
) -> list[Row]:
    """Return a row per reply.

    Args:
        task: What is asked.
        asked: Who answers.
        judge: Who gives the verdicts.
        name: The evaluation's name.
        protocol: Decides with the weights which log is gone on with.
        logs: The folder of all logs.
        log_key: What else decides which log is gone on with.
        concurrency: Replies at once.
        on_progress: Told how many replies are scored.

    Raises:
        SamplingError: A reply or a verdict could not be had; what was done stays in the log.
        MsmError: What ended the judge for all calls, such as a reached budget.
    """
    key = sha256_of_json([protocol.sha256, asked.key, log_key])[:16]
    folder = logs / f"{name}-{key}"
    total = len(task.dataset) * (task.epochs or 1)
    with _counting(total, on_progress), _logging_kept():
        succeeded, (log, *_) = eval_set(
            task,
            log_dir=str(folder),
            model=asked.model,
            model_roles={"judge": judge.model},
            metadata={"protocol_sha256": protocol.sha256, "weights_sha256": asked.key},
            retry_attempts=0,
            retry_immediate=False,
            fail_on_error=True,
            continue_on_fail=True,
            max_samples=concurrency,
            display="none",
            log_level="error",
            log_buffer=1,
            ctl_server=False,
        )
    if not succeeded:
        if judge.journalled is not None:
            judge.journalled.check()
        raise _failure(name, log, total)
    rows = [_row(sample) for sample in _samples(log)]
    assert len(rows) == total, f"{len(rows)} rows for {total} replies"
    if asked.record.weights_sha256 is None:
        _retire(folder)
    index_of = {str(sample.id): index for index, sample in enumerate(task.dataset)}
    return sorted(rows, key=lambda row: (index_of[row.details["sample"]], row.details["epoch"]))


def _retire(folder: Path) -> None:
    """Put a finished log out of the way where nobody knows whose it is.

    What a server holds under a name may be another model tomorrow: only a run that was killed may
    be gone on with.
    """
    number = len(list(folder.parent.glob(f"{folder.name}-done-*"))) + 1
    folder.rename(folder.with_name(f"{folder.name}-done-{number}"))


def _samples(log: EvalLog) -> Iterator[EvalSample]:
    # Events repeat what messages and scores hold, and are most of a log.
    return iter(
        read_eval_log_samples(
            log.location,
            all_samples_required=False,
            resolve_attachments=True,
            exclude_fields={"events", "store"},
        )
    )


def _row(sample: EvalSample) -> Row:
    assert sample.scores, "a scored sample"
    (score,) = sample.scores.values()
    assert isinstance(score.value, dict), "a scorer's numbers by name"
    metadata = sample.metadata
    details = dict(score.metadata or {})
    details |= {"sample": str(sample.id), "epoch": sample.epoch, "reply": sample.output.completion}
    return Row(
        id=f"{sample.id}#{sample.epoch}",
        group=str(metadata["group"]),
        cluster=str(metadata["cluster"]),
        numbers={metric: _number(value) for metric, value in score.value.items()},
        details=details,
    )


def _number(value: object) -> float | None:
    assert isinstance(value, int | float | None), f"a number, not {value!r}"
    return None if value is None or math.isnan(value) else float(value)


@contextlib.contextmanager
def _counting(total: int, on_progress: Progress) -> Iterator[None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    token = ON_SCORED.set(count)
    try:
        yield
    finally:
        ON_SCORED.reset(token)


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    """Give the process its logging back: Inspect takes the root logger, and hides warnings."""
    names = ("", __name__.split(".")[0], "megatron_msm")
    loggers = [logging.getLogger(name) for name in names]
    kept = [(one, one.level, list(one.handlers)) for one in loggers]
    try:
        yield
    finally:
        for one, level, handlers in kept:
            one.setLevel(level)
            one.handlers[:] = handlers


def _failure(name: str, log: EvalLog, total: int) -> SamplingError:
    """Say what went wrong first; the log has the rest."""
    failed = [sample for sample in _samples(log) if sample.error] if log.location else []
    first = failed[0].error if failed else log.error
    # Inspect passes errors on as text: what is ours is known by its class's name.
    reason = "unknown" if first is None else first.message.strip().splitlines()[0]
    which = f"{len(failed)} of {total} replies failed; the first" if failed else "it failed"
    return SamplingError(
        f"evaluation {name!r}: {which}: {reason}. What was done is kept in {log.location}: mend "
        "the cause and run the same command again; only the rest is asked."
    )
