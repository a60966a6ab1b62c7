"""Sensitivity and bias of arms and of contrasts, where a task lists its options in both orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.report.comparison import Evaluation
from evals.statistics.contrast import training_runs
from evals.statistics.detection import Detection, Sides, detection_contrast
from megatron_msm.formats.eval_result import EvalResult, Row


@dataclass(frozen=True)
class BothOrders:
    """Sensitivity d' and criterion c, over the items that all results have."""

    levels: Mapping[str, Detection]
    """By arm."""
    changes: Mapping[str, Detection]
    """By arm: its change from the first."""
    contrasts: Mapping[str, Detection]
    """By name and terms."""


def both_orders(evaluation: Evaluation) -> BothOrders | None:
    """Return d' and criterion of everything that is compared; None where orders are not two."""
    arms = evaluation.arms
    results = [result for of_arm in arms.values() for result in of_arm]
    rows = [{row.id: row for row in result.rows} for result in results]
    if not all(len(row.details.get("orders", ())) == 2 for one in rows for row in one.values()):
        return None
    items = [key for key in rows[0] if all(key in one for one in rows)]
    clusters = [rows[0][key].cluster for key in items]
    runs = {
        arm: [_sides(run, items) for run in training_runs(of_arm)] for arm, of_arm in arms.items()
    }
    first = next(iter(arms))

    def of(weights: Mapping[str, float]) -> Detection:
        return detection_contrast(runs, weights, clusters)

    return BothOrders(
        levels={arm: of({arm: 1.0}) for arm in arms},
        changes={arm: of({arm: 1.0, first: -1.0}) for arm in arms if arm != first},
        contrasts={one.title: of(one.weights) for one in evaluation.contrasts},
    )


def _sides(repeats: Sequence[EvalResult], items: Sequence[str]) -> Sides:
    """Return one checkpoint's choices by item; those of its repeats are averaged."""
    tables = [{row.id: row for row in result.rows} for result in repeats]
    when_right, when_wrong = (
        [_mean([_chose_first(table[key], order) for table in tables]) for key in items]
        for order in (0, 1)
    )
    return Sides(when_right, when_wrong)


def _chose_first(row: Row, order: int) -> float:
    """Return whether the option listed first was chosen; the target is it in the first order."""
    log_odds = float(row.details["orders"][order]["log_odds"])
    toward_first = log_odds if order == 0 else -log_odds
    return 0.5 if toward_first == 0 else float(toward_first > 0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
