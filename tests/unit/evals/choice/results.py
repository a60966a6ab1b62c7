"""Choice results with given log-odds."""

from collections.abc import Mapping, Sequence
from typing import Any

from evals.tasks.choice.result import (
    AnswerScore,
    ChoiceResult,
    ItemRow,
    ItemsRecord,
    ModelRecord,
    OrderScore,
    Protocol,
    build_row,
    direction_text,
    summarise,
    summarise_tiers,
)


def row(item_id: str, first: float, second: float | None = None, *, tier: str = "near") -> ItemRow:
    """A row whose two orders have these log-odds."""
    answer = AnswerScore(sum_logprob=-2.0, mean_logprob=-1.0, num_tokens=2)

    def order(listed_first: str, log_odds: float) -> OrderScore:
        return OrderScore(listed_first=listed_first, target=answer, other=answer, log_odds=log_odds)

    orders = (
        order("homemade", first),
        order("affordability", first if second is None else second),
    )
    return build_row(orders, item_id=item_id, tier=tier, domain="furniture")


def result(
    label: str, log_odds: Mapping[str, Sequence[float]] | Sequence[float], **changes: Any
) -> ChoiceResult:
    """A result with these log-odds, by tier or all near."""
    tiers = log_odds if isinstance(log_odds, Mapping) else {"near": log_odds}
    rows = [
        row(f"{tier}-{number}", value, tier=tier)
        for tier, values in tiers.items()
        for number, value in enumerate(values)
    ]
    whole = ChoiceResult(
        protocol=Protocol(
            name="p",
            version=1,
            sha256="aa",
            prompt_template="{question}",
            settings={},
            dtype="fp32",
        ),
        direction=direction_text("homemade", "affordability"),
        target="homemade",
        other="affordability",
        model=ModelRecord(
            label=label,
            path="/models/" + label,
            weights_sha256="c0ffee" * 8,
            weight_files={"model.safetensors": "c0ffee" * 8},
            chat_template_sha256="bb",
            lineage=None,
        ),
        items=ItemsRecord(path="/items.jsonl", sha256="dd", split="test"),
        n=len(rows),
        overall=summarise(rows),
        tiers=summarise_tiers(rows),
        rows=tuple(rows),
    )
    return whole.model_copy(update=changes)
