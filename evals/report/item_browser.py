"""Items to browse: what was asked, and what every model's numbers on it are.

Where a task lists options in both orders, an item's log-odds stand for each order apart. Replies
are no items: they are transcripts.
"""

from collections.abc import Sequence
from typing import Any

from evals.report.comparison import Evaluation
from megatron_msm.formats.eval_result import EvalResult, Row

ASKED = ("question", "text", "target", "other", "right")
"""Details of a row that say what was asked, where a task has them."""
DIGITS = 4


def browsable(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return `of`: columns and models of each evaluation without replies, and `rows`: its items.

    An item's `values` are a row a model, None where the model has no such item.
    """
    kept = [one for one in evaluations if not any("reply" in row.details for row in one.first.rows)]
    return {
        "of": {
            one.first.name: {
                "columns": [one.first.headline_metric.title, *_orders(one.first)],
                "models": [result.model.label for result in _results(one)],
            }
            for one in kept
        },
        "rows": [item for one in kept for item in _items(one)],
    }


def _results(evaluation: Evaluation) -> list[EvalResult]:
    return [result for of_arm in evaluation.arms.values() for result in of_arm]


def _items(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows = [{row.id: row for row in result.rows} for result in _results(evaluation)]
    metric = evaluation.first.headline
    return [
        {
            "evaluation": evaluation.first.name,
            "group": row.group,
            "id": row.id,
            "order decides": "for some"
            if any(_flips(of.get(row.id)) for of in rows)
            else "for none",
            "texts": [[key, str(row.details[key])] for key in ASKED if row.details.get(key)],
            "values": [_values(of.get(row.id), metric) for of in rows],
        }
        for row in evaluation.first.rows
    ]


def _orders(result: EvalResult) -> list[str]:
    orders = result.rows[0].details.get("orders", ()) if result.rows else ()
    return [f"{one['listed_first']} listed first" for one in orders]


def _values(row: Row | None, metric: str) -> list[float | None] | None:
    if row is None:
        return None
    numbers = [row.numbers[metric], *(one["log_odds"] for one in row.details.get("orders", ()))]
    return [None if number is None else round(number, DIGITS) for number in numbers]


def _flips(row: Row | None) -> bool:
    """Tell whether the order of listing decides the choice."""
    orders = () if row is None else row.details.get("orders", ())
    return len({one["log_odds"] > 0 for one in orders}) > 1
