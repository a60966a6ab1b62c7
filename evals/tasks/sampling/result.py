"""From rows to metrics: the columns of a generating evaluation, in order."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from evals.statistics.summaries import Statistic, mean_summary, metric_of, rate_summary
from megatron_msm.formats.eval_result import Metric, Row


class Column(NamedTuple):
    """A metric of the result, by the number of the rows that it is over."""

    name: str
    title: str
    statistic: Statistic = rate_summary
    unit: str = "share"
    better: Literal["higher", "lower"] | None = None


SHAPE_COLUMNS = (
    Column("cut_off", "cut off"),
    Column("reply_tokens", "length", mean_summary, unit="tokens"),
)
"""What a reply was like, whatever it said; `shape_of` makes the numbers."""


def metrics_of(
    rows: Sequence[Row], columns: Sequence[Column], *, cluster_is: str
) -> tuple[Metric, ...]:
    """Return the metrics over all rows and by group.

    Args:
        rows: At least one.
        columns: Which, in the order of the result; the first is shown first.
        cluster_is: What rows of one cluster share.
    """
    return tuple(
        metric_of(
            rows,
            column.name,
            column.statistic,
            title=column.title,
            unit=column.unit,
            better=column.better,
            cluster_is=cluster_is,
        )
        for column in columns
    )
