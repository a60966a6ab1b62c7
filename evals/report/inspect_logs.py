"""Inspect logs that others made, as results: so that they are paired, contrasted and reported.

A row is a sample of the log's dataset; where it was asked several times (epochs), its number is
the mean. Correct, incorrect, partial and no answer count as Inspect has them: 1, 0, 0.5, 0. What
else two logs differ in (task, arguments, solvers, sampling, scorers, dataset) is their protocol.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalLog, EvalSample, read_eval_log, read_eval_log_samples
from inspect_ai.scorer import CORRECT, INCORRECT, NOANSWER, PARTIAL

from evals.statistics.summaries import mean_summary, metric_of, rate_summary
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import EvalResult, ModelRecord, Protocol, Row
from megatron_msm.formats.files import sha256_of_json

_VALUES = {CORRECT: 1.0, INCORRECT: 0.0, PARTIAL: 0.5, NOANSWER: 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_ALL = "all"
# Of Inspect's sampling settings, what speeds a run up or retries it, and changes no reply.
_WITHOUT_EFFECT = {
    "max_connections",
    "max_retries",
    "timeout",
    "attempt_timeout",
    "adaptive_connections",
    "cache",
    "batch",
}


def load_inspect_log(
    path: Path, *, cluster: str | None = None, group: str | None = None
) -> EvalResult:
    """Read a log (`.eval`, or Inspect's `.json`).

    Args:
        path: The log.
        cluster: Field of the samples' metadata that says which are not independent.
        group: Field of the samples' metadata to group by.

    Raises:
        DataFormatError: It is no log, was not finished, or no score of it is a number.
    """
    log, samples = _read(path)
    if log.eval.metadata and "protocol_sha256" in log.eval.metadata:  # one of ours says it itself
        cluster, group = cluster or "cluster", group or "group"
    by_id: dict[str, list[EvalSample]] = {}
    for sample in samples:
        by_id.setdefault(str(sample.id), []).append(sample)
    scores = {key: [_numbers(one) for one in epochs] for key, epochs in by_id.items()}
    names = _metric_names([table for of_sample in scores.values() for table in of_sample], path)
    rows = [
        Row(
            id=key,
            group=_field(epochs[0], group, path) if group else _ALL,
            cluster=_field(epochs[0], cluster, path) if cluster else key,
            numbers={name: _mean([table.get(name) for table in scores[key]]) for name in names},
            details={"text": _text(epochs[0].input), "reply": epochs[0].output.completion},
        )
        for key, epochs in by_id.items()
    ]
    protocol = _protocol(log, by_id)
    return EvalResult(
        name=log.eval.task,
        protocol=protocol,
        protocol_sha256=protocol.sha256,
        model=ModelRecord(
            label=log.eval.model,
            path=f"{log.eval.model}, in {path}",
            weights_sha256=(log.eval.metadata or {}).get("weights_sha256"),
            chat_template_sha256=None,
            lineage=None,
        ),
        items=str(log.eval.dataset.location or log.eval.dataset.name or path),
        meaning=f"the mean score of {names[0]}, as Inspect's log has it",
        headline=names[0],
        metrics=tuple(
            metric_of(
                rows,
                name,
                rate_summary if _is_rate(rows, name) else mean_summary,
                title=name,
                unit="share" if _are_shares(scores.values(), name) else "score",
                cluster_is=cluster or "cluster",
            )
            for name in names
        ),
        n=len(rows),
        note=f"an Inspect log of {log.eval.created}: it tells the model's name, not its weights",
        runtime={"inspect": dict(log.eval.packages), "created": log.eval.created},
        rows=tuple(rows),
    )


def _read(path: Path) -> tuple[EvalLog, Iterable[EvalSample]]:
    try:
        log = read_eval_log(path, header_only=True)
        samples: Iterable[EvalSample]
        if path.suffix == ".json":
            samples = read_eval_log(path).samples or []
        else:
            samples = list(
                read_eval_log_samples(
                    path,
                    all_samples_required=False,
                    resolve_attachments=True,
                    exclude_fields={"events", "store"},
                )
            )
    except Exception as error:  # Inspect raises whatever its readers meet
        raise DataFormatError(
            f"{path}: cannot be read as an Inspect log ({type(error).__name__}: {error}). "
            "Give a log that `inspect eval` wrote (.eval or .json)."
        ) from None
    if log.status != "success":
        raise DataFormatError(
            f"{path}: the log's status is {log.status!r}: what is missing may not be missing by "
            "chance. Finish it with `inspect eval-retry`."
        )
    return log, samples


def _protocol(log: EvalLog, by_id: dict[str, list[EvalSample]]) -> Protocol:
    sampling = log.eval.model_generate_config.model_dump(exclude_none=True)
    sampling |= log.plan.config.model_dump(exclude_none=True)
    sampling = {key: value for key, value in sampling.items() if key not in _WITHOUT_EFFECT}
    asked = [[key, _text(epochs[0].input), epochs[0].target] for key, epochs in by_id.items()]
    asked.sort(key=lambda one: str(one[0]))
    roles = log.eval.model_roles or {}
    return Protocol(
        task=log.eval.task,
        version=1,
        items_sha256=sha256_of_json(asked),
        chat_template_sha256=None,
        temperature=sampling.pop("temperature", None),
        samples_per_item=log.eval.config.epochs or 1,
        judge=", ".join(f"{role} {_jsonable(of)}" for role, of in sorted(roles.items())) or None,
        settings={
            "task_version": str(log.eval.task_version),
            "task_arguments": _jsonable(log.eval.task_args),
            "solvers": [[step.solver, _jsonable(step.params)] for step in log.plan.steps],
            "scorers": [[one.name, _jsonable(one.options)] for one in log.eval.scorers or ()],
            "message_limit": log.eval.config.message_limit,
            "token_limit": log.eval.config.token_limit,
            **_jsonable(sampling),
        },
    )


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    dump = getattr(value, "model_dump", None)
    return str(value) if dump is None else _jsonable(dump(mode="json", exclude_none=True))


def _numbers(sample: EvalSample) -> dict[str, float | str | None]:
    """Return a sample's scores by name; a text where one is no number."""
    found: dict[str, float | str | None] = {}
    for scorer, score in (sample.scores or {}).items():
        parts = score.value if isinstance(score.value, dict) else {"": score.value}
        for part, value in parts.items():
            found[f"{scorer}/{part}" if part else scorer] = _number(value)
    return found


def _number(value: object) -> float | str | None:
    if value is None:
        return None
    if isinstance(value, str):
        number = _VALUES.get(value, _WORDS.get(value.lower()))
        try:
            return float(value) if number is None else number
        except ValueError:
            return value
    if isinstance(value, bool | int | float):
        return None if math.isnan(value) else float(value)
    return str(value)


def _metric_names(tables: Sequence[dict[str, float | str | None]], path: Path) -> list[str]:
    names = dict.fromkeys(name for table in tables for name in table)
    texts = {name: t[name] for t in tables for name in names if isinstance(t.get(name), str)}
    numeric = [name for name in names if name not in texts]
    if not numeric:
        found = "; ".join(f"{name} gives {value!r}" for name, value in texts.items())
        raise DataFormatError(
            f"{path}: no score in it is a number ({found or 'it has none'}). Score the log again "
            "with `inspect score`, with a scorer that gives numbers."
        )
    return numeric


def _mean(values: Sequence[float | str | None]) -> float | None:
    numbers = [value for value in values if isinstance(value, float)]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _are_shares(scores: Iterable[Sequence[dict[str, float | str | None]]], name: str) -> bool:
    return all(
        value is None or (isinstance(value, float) and 0 <= value <= 1)
        for tables in scores
        for value in (table.get(name) for table in tables)
    )


def _is_rate(rows: Sequence[Row], name: str) -> bool:
    return {row.numbers[name] for row in rows} <= {0.0, 0.5, 1.0, None}


def _field(sample: EvalSample, name: str, path: Path) -> str:
    if name not in sample.metadata:
        known = ", ".join(sorted(map(str, sample.metadata))) or "none"
        raise DataFormatError(
            f"{path}: sample {sample.id!r} has no field {name!r} in its metadata; it has {known}."
        )
    return str(sample.metadata[name])


def _text(asked: object) -> str:
    if isinstance(asked, str):
        return asked
    assert isinstance(asked, list), "messages"
    return "\n".join(f"{message.role}: {message.text}" for message in asked)
