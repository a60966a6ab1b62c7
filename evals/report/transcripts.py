"""Texts to read, of every result that has some: what was asked, what came, what a judge said.

They stand in the page as one block of JSON, and a small script shows a few at a time: 20,000 of
them as elements would be too much for a browser.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from evals.report.comparison import Evaluation
from megatron_msm.formats.eval_result import EvalResult, Metric, Row

READABLE = ("messages", "reply", "continuation")
"""A row is a transcript when it has one of these details."""


def transcripts_of(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Return the rows that have texts, in the order of the report."""
    return [
        transcript
        for evaluation in evaluations
        for arm, results in evaluation.arms.items()
        for result in results
        for transcript in _of_result(result, arm)
    ]


def json_block(value: object) -> Markup:
    """Return a value as JSON that no text in it can end: it stands in a script element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026").replace(">", "\\u003e"))


def _of_result(result: EvalResult, arm: str) -> Iterator[dict[str, Any]]:
    for row in result.rows:
        if any(row.details.get(key) for key in READABLE):
            yield {
                "evaluation": result.name,
                "arm": arm,
                "label": result.model.label,
                "group": row.group,
                "id": row.id,
                "verdict": _verdict(row, result.headline_metric),
                "numbers": {
                    metric.title: _number(row.numbers[metric.name]) for metric in result.metrics
                },
                "texts": [[key, text] for key, text in _texts(row.details)],
            }


def _verdict(row: Row, metric: Metric) -> str:
    number = row.numbers[metric.name]
    if number is None:
        return f"{metric.title}: unscored"
    if metric.unit == "share":
        return f"{metric.title}: {'yes' if number == 1 else 'no' if number == 0 else 'in part'}"
    return f"{metric.title}: {'above' if number > 0 else 'not above'} 0"


def _number(number: float | None) -> str:
    return "unscored" if number is None else f"{number:.3g}"


def _texts(details: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in details.items():
        if isinstance(value, str) and value:
            yield key, value
        elif key == "answers" and isinstance(value, list):
            yield key, "\n".join(f"{one['mean_logprob']:+.3f}  {one['text']}" for one in value)
        elif key == "messages" and isinstance(value, list):
            for message in value:
                yield str(message.get("role", "message")), str(message.get("content", ""))
