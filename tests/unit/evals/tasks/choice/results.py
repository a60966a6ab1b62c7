"""Choice results with given log-odds."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from evals.statistics.summaries import SEED_NOTE
from evals.tasks.choice.result import (
    LOG_ODDS,
    AnswerScore,
    OrderScore,
    build_row,
    choice_metrics,
    direction_text,
)
from megatron_msm.formats.eval_result import EvalResult, ModelRecord, Protocol, Row


def row(item_id: str, first: float, second: float | None = None, *, tier: str = "near") -> Row:
    """A row whose two orders have these log-odds."""
    answer = AnswerScore(sum_logprob=-2.0, mean_logprob=-1.0, num_tokens=2)

    def order(listed_first: str, log_odds: float) -> OrderScore:
        return OrderScore(listed_first=listed_first, target=answer, other=answer, log_odds=log_odds)

    orders = (
        order("homemade", first),
        order("affordability", first if second is None else second),
    )
    asked = {"question": "Which chair?", "target": "the one made in town", "other": "the cheap one"}
    return build_row(orders, item_id=item_id, tier=tier, domain="furniture", asked=asked)


PROTOCOL = Protocol(
    task="p",
    version=1,
    items_sha256="dd",
    chat_template_sha256="bb",
    settings={"split": "test", "target": "homemade", "prompt_template": "{question}"},
)


def weights_of(label: str) -> str:
    """Another hash for each label, as another training run has."""
    return "c0ffee" + hashlib.sha256(label.encode(errors="replace")).hexdigest()[:42]


def result(
    label: str,
    log_odds: Mapping[str, Sequence[float]] | Sequence[float],
    *,
    target: str = "homemade",
    other: str = "affordability",
    **changes: Any,
) -> EvalResult:
    """A result with these log-odds, by tier or all near."""
    tiers = log_odds if isinstance(log_odds, Mapping) else {"near": log_odds}
    rows = [
        row(f"{tier}-{number}", value, tier=tier)
        for tier, values in tiers.items()
        for number, value in enumerate(values)
    ]
    whole = EvalResult(
        name="choice",
        protocol=PROTOCOL,
        protocol_sha256=PROTOCOL.sha256,
        model=ModelRecord(
            label=label,
            path="/models/" + label,
            weights_sha256=weights_of(label),
            weight_files={"model.safetensors": weights_of(label)},
            chat_template_sha256="bb",
            lineage=None,
        ),
        items="/items.jsonl",
        meaning=direction_text(target, other),
        headline=LOG_ODDS,
        metrics=choice_metrics(rows, target=target, other=other),
        n=len(rows),
        note=SEED_NOTE,
        rows=tuple(rows),
    )
    return whole.model_copy(update=changes)
