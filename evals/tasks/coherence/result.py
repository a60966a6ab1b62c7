"""What coherence comes to: bits per byte of a given text, repetition in the model's own."""

import math
from collections.abc import Sequence

from evals.statistics.summaries import mean_summary, metric_of
from evals.tasks.coherence.texts import RunningText
from megatron_msm.formats.eval_result import Metric, Row

BITS_PER_BYTE = "bits_per_byte"
REPETITION = "repetition"
RUN_TOKENS = 4


def repetition(ids: Sequence[int]) -> float | None:
    """Return the share of 4-token runs that stood earlier in the text; None where it has none."""
    runs = [tuple(ids[n : n + RUN_TOKENS]) for n in range(len(ids) - RUN_TOKENS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else None


def build_row(
    text: RunningText,
    sum_logprob: float,
    own_ids: Sequence[int],
    *,
    start_text: str,
    own_text: str,
) -> Row:
    """Return a text's numbers.

    Args:
        text: The text.
        sum_logprob: Natural-log probability of the text.
        own_ids: What the model wrote.
        start_text: What it wrote on from.
        own_text: What it wrote, as text.
    """
    num_bytes = len(text.text.encode())
    return Row(
        id=text.id,
        group=text.group,
        cluster=text.id,
        numbers={
            BITS_PER_BYTE: -sum_logprob / math.log(2) / num_bytes,
            REPETITION: repetition(own_ids),
        },
        details={"start": start_text, "continuation": own_text},
    )


def coherence_metrics(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """Return the metrics over some rows; at least one."""
    return (
        metric_of(
            rows, BITS_PER_BYTE, mean_summary, title="bits per byte", unit="bits per byte",
            better="lower",
        ),
        metric_of(
            rows, REPETITION, mean_summary, title="repetition", unit="share", better="lower"
        ),
    )  # fmt: skip
