"""What a probe comes to: by how much the right answer is likelier, and whether it is."""

from collections.abc import Sequence

from evals.models.continuations import ContinuationScore
from evals.statistics.summaries import mean_summary, metric_of, rate_summary
from evals.tasks.probes.items import ProbeItem
from megatron_msm.formats.eval_result import Metric, Row

MARGIN = "margin"
RIGHT = "right"


def build_row(item: ProbeItem, scores: Sequence[ContinuationScore]) -> Row:
    """Return an item's numbers.

    Args:
        item: The item.
        scores: Of its answers, the right one first.
    """
    right, *wrong = (score.mean_logprob for score in scores)
    margin = right - max(wrong)
    ties = sum(each == right for each in wrong)
    return Row(
        id=item.id,
        group=item.in_group,
        cluster=item.id,
        numbers={MARGIN: margin, RIGHT: 0.0 if margin < 0 else 1 / (1 + ties)},
        details={
            "clause_ids": list(item.clause_ids),
            "text": item.text,
            "right": item.right,
            "answers": [
                {"text": text, "mean_logprob": one.mean_logprob, "num_tokens": one.num_tokens}
                for text, one in zip(item.answers, scores, strict=True)
            ],
        },
    )


def probe_metrics(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """Return the metrics over some rows; at least one."""
    return (
        metric_of(
            rows, MARGIN, mean_summary, title="margin of the right answer",
            unit="nats per token", better="higher",
        ),
        metric_of(
            rows, RIGHT, rate_summary, title="right answer likeliest", unit="share",
            better="higher",
        ),
    )  # fmt: skip
