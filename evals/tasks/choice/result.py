"""What a forced choice comes to: an item's numbers, and the metrics over items.

An item's log-odds is the mean, over the two orders of listing the options, of
`mean log-prob(target) - mean log-prob(other)`. It is chosen when that is above zero; an exact tie
counts one half.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from evals.statistics.summaries import mean_summary, metric_of, rate_summary
from megatron_msm.formats.eval_result import Metric, Row

LOG_ODDS = "log_odds"
CHOSE_TARGET = "chose_target"
FLIPS = "flips"
LISTED_FIRST = "listed_first_log_odds"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AnswerScore(_Frozen):
    """One answer under one prompt."""

    sum_logprob: float
    mean_logprob: float
    num_tokens: int


class OrderScore(_Frozen):
    """Both answers under one order of listing them."""

    listed_first: str
    """Label of the option listed first."""
    target: AnswerScore
    other: AnswerScore
    log_odds: float


def direction_text(target: str, other: str) -> str:
    """Say what the sign of the log-odds means."""
    return f"log-odds > 0 means `{target}` is preferred to `{other}`"


def choice_of(log_odds: float) -> float:
    """Return 1 when the target is chosen, 0 when the other is, 0.5 at an exact tie."""
    if log_odds == 0:
        return 0.5
    return 1.0 if log_odds > 0 else 0.0


def build_row(
    orders: tuple[OrderScore, OrderScore],
    *,
    item_id: str,
    tier: str,
    domain: str,
    asked: Mapping[str, str],
) -> Row:
    """Combine the two orders of an item: the first lists the target first, the second the other.

    Args:
        orders: Both orders' scores.
        item_id: The item.
        tier: Its tier.
        domain: Its domain.
        asked: The words of `question`, `target` and `other`, to be read in a report.
    """
    first, second = (order.log_odds for order in orders)
    log_odds = (first + second) / 2
    return Row(
        id=item_id,
        group=tier,
        cluster=item_id,
        numbers={
            LOG_ODDS: log_odds,
            CHOSE_TARGET: choice_of(log_odds),
            # Where the two orders choose differently, position decides and not preference.
            FLIPS: float(choice_of(first) != choice_of(second)),
            LISTED_FIRST: (first - second) / 2,
        },
        details={**asked, "domain": domain, "orders": [order.model_dump() for order in orders]},
    )


def choice_metrics(rows: Sequence[Row], *, target: str, other: str) -> tuple[Metric, ...]:
    """Return the metrics over some rows; at least one."""
    return (
        metric_of(
            rows, LOG_ODDS, mean_summary, title="mean log-odds", unit="nats per token",
            higher_means=target, lower_means=other,
        ),
        metric_of(
            rows, CHOSE_TARGET, rate_summary, title=f"chose {target}", unit="share",
            higher_means=target, lower_means=other,
        ),
        metric_of(rows, FLIPS, rate_summary, title="order flips", unit="share", better="lower"),
        metric_of(
            rows, LISTED_FIRST, mean_summary, title="pull of the option listed first",
            unit="nats per token",
        ),
    )  # fmt: skip
