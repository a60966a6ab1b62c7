"""The change between two models on the same items.

Matched by item, the items' own difficulty cancels, and the interval is that of the change alone.
"""

from evals.statistics.contrast import contrast
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import EvalResult, Interval, Metric


def differences_in_protocol(before: EvalResult, after: EvalResult) -> list[str]:
    """Name what two results were not measured alike in; empty when they are comparable."""
    one, two = before.protocol, after.protocol
    facts: dict[str, tuple[object, object]] = {
        "task": (one.task, two.task),
        "protocol": (one.version, two.version),
        "item file": (one.items_sha256, two.items_sha256),
        "chat template": (one.chat_template_sha256, two.chat_template_sha256),
        "temperature": (one.temperature, two.temperature),
        "samples an item": (one.samples_per_item, two.samples_per_item),
        "judge": (one.judge, two.judge),
    }
    for key in sorted({*one.settings, *two.settings}):
        facts[key.replace("_", " ")] = (one.settings.get(key), two.settings.get(key))
    found = [
        f"{name} ({_short(left)} and {_short(right)})"
        for name, (left, right) in facts.items()
        if left != right
    ]
    if not found and {row.id for row in before.rows} != {row.id for row in after.rows}:
        found.append("item ids")
    return found


def check_comparable(
    before: EvalResult, after: EvalResult, *, across_protocols: bool = False
) -> None:
    """Refuse two results that were not measured alike.

    Args:
        before: The reference.
        after: What is compared with it.
        across_protocols: Let protocols differ, as long as the metrics and groups are the same.

    Raises:
        DataFormatError: Their protocols or items differ.
    """
    found = differences_in_protocol(before, after)
    if across_protocols:
        found = [] if _shape(before) == _shape(after) else ["metrics or groups"]
    if found:
        raise DataFormatError(
            f"the results `{before.model.label}` and `{after.model.label}` of {before.name!r} "
            f"differ in their {', '.join(found)}, so their difference would not be an effect. "
            "Run the evaluation again with the same items and settings for both."
        )


def _shape(result: EvalResult) -> tuple[str, str, dict[str, set[str]]]:
    groups = {metric.name: set(metric.groups) for metric in result.metrics}
    return result.protocol.task, result.headline, groups


def paired_difference(
    before: EvalResult, after: EvalResult, *, metric: str | None = None, group: str | None = None
) -> Interval:
    """Return the mean change of a metric, with its 95% t interval over items.

    Args:
        before: The reference.
        after: What is compared with it.
        metric: Its name; the headline without it.
        group: Only the items of this group; all without it.

    Raises:
        DataFormatError: The two were not measured alike.
    """
    check_comparable(before, after)
    arms = {"before": [before], "after": [after]}
    return contrast(arms, {"after": 1.0, "before": -1.0}, metric=metric, group=group).interval


def verdict(difference: Interval, metric: Metric) -> str:
    """Say in plain words what a paired difference shows."""
    if difference.low is None or difference.high is None:
        return "no effect shown: one item gives no interval"
    if not (difference.is_above_zero or difference.is_below_zero):
        interval = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
        return f"no effect shown: the interval {interval} includes zero"
    up = difference.is_above_zero
    size = f"{difference.estimate:.2f} [{difference.low:.2f}, {difference.high:.2f}]"
    if not up:
        size = f"{-difference.estimate:.2f} [{-difference.high:.2f}, {-difference.low:.2f}]"
    toward = metric.higher_means if up else metric.lower_means
    if toward:
        return f"moved toward `{toward}` by {size} {metric.unit}"
    worth = "" if metric.better is None else " (better)" if _improves(metric, up) else " (worse)"
    return f"{metric.title} {'rose' if up else 'fell'} by {size}, {metric.unit}{worth}"


def _improves(metric: Metric, up: bool) -> bool:
    return up == (metric.better == "higher")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "…"
