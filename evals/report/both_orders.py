"""Sensitivity and bias of each arm, where a task lists its options in both orders."""

from collections.abc import Sequence

from evals.report.comparison import Evaluation
from evals.statistics.detection import Detection, two_alternatives
from megatron_msm.formats.eval_result import EvalResult, Row


def detections(evaluation: Evaluation) -> dict[str, Detection]:
    """Return d' and criterion by arm, over items; its seeds' choices are averaged by item."""
    if not all(len(row.details.get("orders", ())) == 2 for row in evaluation.first.rows):
        return {}
    return {arm: _detection(results) for arm, results in evaluation.arms.items()}


def _detection(results: Sequence[EvalResult]) -> Detection:
    by_item: dict[str, list[Row]] = {}
    for result in results:
        for row in result.rows:
            by_item.setdefault(row.id, []).append(row)
    items = list(by_item.values())
    return two_alternatives(
        [_mean([_chose_first(row, 0) for row in rows]) for rows in items],
        [_mean([_chose_first(row, 1) for row in rows]) for rows in items],
        [rows[0].cluster for rows in items],
    )


def _chose_first(row: Row, order: int) -> float:
    """Return whether the option listed first was chosen; the target is it in the first order."""
    log_odds = float(row.details["orders"][order]["log_odds"])
    toward_first = log_odds if order == 0 else -log_odds
    return 0.5 if toward_first == 0 else float(toward_first > 0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
