"""The change between two models on the same items.

Matched by item, the items' own difficulty cancels, and the interval is that of the change alone.
"""

from evals.statistics.intervals import Interval, mean_interval
from evals.tasks.choice.result import ChoiceResult
from megatron_msm.errors import DataFormatError


def check_comparable(before: ChoiceResult, after: ChoiceResult) -> None:
    """Refuse two results that were not measured alike.

    Raises:
        DataFormatError: Protocol, item file, split, target or chat template differ.
    """
    facts = {
        "protocol": (before.protocol.sha256, after.protocol.sha256),
        "item file": (before.items.sha256, after.items.sha256),
        "split": (before.items.split, after.items.split),
        "target": (before.target, after.target),
        "chat template": (before.model.chat_template_sha256, after.model.chat_template_sha256),
        "item ids": (sorted(row.id for row in before.rows), sorted(row.id for row in after.rows)),
    }
    for name, (one, two) in facts.items():
        if one != two:
            shown = "" if isinstance(one, list) else f" ({str(one)[:12]} and {str(two)[:12]})"
            raise DataFormatError(
                f"the results `{before.model.label}` and `{after.model.label}` differ in their "
                f"{name}{shown}, so their difference would not be an effect. Run `msm eval "
                "choice` again with the same items and options for both."
            )


def paired_difference(
    before: ChoiceResult, after: ChoiceResult, *, tier: str | None = None
) -> Interval:
    """Return the mean change in item log-odds, with its 95% t interval over items.

    Args:
        before: The reference.
        after: What is compared with it.
        tier: Only the items of this tier; all without it.

    Raises:
        DataFormatError: The two were not measured alike.
    """
    check_comparable(before, after)
    log_odds_before = {row.id: row.log_odds for row in before.rows}
    return mean_interval(
        [
            row.log_odds - log_odds_before[row.id]
            for row in after.rows
            if tier is None or row.tier == tier
        ]
    )


def verdict(difference: Interval, *, target: str, other: str) -> str:
    """Say in plain words what a paired difference shows."""
    if difference.low is None or difference.high is None:
        return "no effect shown: one item gives no interval"
    if difference.is_above_zero:
        size = f"{difference.estimate:.2f} [{difference.low:.2f}, {difference.high:.2f}]"
        return f"moved toward `{target}` by {size} nats per token"
    if difference.is_below_zero:
        size = f"{-difference.estimate:.2f} [{-difference.high:.2f}, {-difference.low:.2f}]"
        return f"moved toward `{other}` by {size} nats per token"
    interval = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"no effect shown: the interval {interval} includes zero"
