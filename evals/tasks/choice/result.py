"""The result of a forced-choice run: what is in RESULT.json, and the statistics over its rows.

A row's log-odds is the mean, over the two orders of listing the options, of
`mean log-prob(target) - mean log-prob(other)`. Its choice is 1 above zero, 0 below, 0.5 at zero.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from evals.statistics.intervals import Interval, mean_interval, rate_interval
from megatron_msm.formats.json_input import check_model, parse_json, read_file

SEED_NOTE = (
    "1 model, one seed: the intervals cover the spread over items, not that of another training run"
)


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


class ItemRow(_Frozen):
    """One item's scores."""

    id: str
    tier: str
    domain: str
    log_odds: float
    choice: float
    """1 target, 0 other, 0.5 tie."""
    flips: bool
    """Whether the two orders choose differently: then position decided, not preference."""
    orders: tuple[OrderScore, OrderScore]


class Summary(_Frozen):
    """Statistics over the items of a tier, or over all."""

    n: int
    num_target_chosen: float
    rate: Interval
    """Share of items on which the target is chosen; Wilson."""
    log_odds: Interval
    """Mean over items; t."""
    num_flips: int
    flip_share: float
    listed_first_log_odds: float
    """Mean pull toward whatever is listed first; 0 without position bias."""


class Protocol(_Frozen):
    """What two results must share to be compared."""

    name: str
    version: int
    sha256: str
    prompt_template: str
    settings: dict[str, Any]
    dtype: str


class ModelRecord(_Frozen):
    """Which model was judged."""

    label: str
    path: str
    weights_sha256: str
    """Over the names and hashes of the weight files."""
    weight_files: dict[str, str]
    chat_template_sha256: str
    lineage: list[dict[str, Any]] | None
    """What made it, from msm_export.json; None when the folder has none."""


class ItemsRecord(_Frozen):
    """Which items were asked."""

    path: str
    sha256: str
    split: str


class ChoiceResult(_Frozen):
    """The content of RESULT.json."""

    kind: Literal["msm-eval-choice"] = "msm-eval-choice"
    format_version: Literal[1] = 1
    protocol: Protocol
    direction: str
    """Which way the numbers point, in words."""
    target: str
    other: str
    model: ModelRecord
    items: ItemsRecord
    n: int
    note: str = SEED_NOTE
    overall: Summary
    tiers: dict[str, Summary]
    """In the order of the item file."""
    runtime: dict[str, Any] = Field(default_factory=dict)
    """Device, batch size, seconds, versions: not part of the identity of the result."""
    rows: tuple[ItemRow, ...]


def direction_text(target: str, other: str) -> str:
    """Say what the sign of the log-odds means."""
    return f"log-odds > 0 means `{target}` is preferred to `{other}`"


def choice_of(log_odds: float) -> float:
    """Return 1 when the target is chosen, 0 when the other is, 0.5 at an exact tie."""
    if log_odds == 0:
        return 0.5
    return 1.0 if log_odds > 0 else 0.0


def build_row(
    orders: tuple[OrderScore, OrderScore], *, item_id: str, tier: str, domain: str
) -> ItemRow:
    """Combine the two orders of an item."""
    log_odds = (orders[0].log_odds + orders[1].log_odds) / 2
    return ItemRow(
        id=item_id,
        tier=tier,
        domain=domain,
        log_odds=log_odds,
        choice=choice_of(log_odds),
        flips=choice_of(orders[0].log_odds) != choice_of(orders[1].log_odds),
        orders=orders,
    )


def summarise(rows: Sequence[ItemRow]) -> Summary:
    """Return the statistics over some rows; at least one."""
    chosen = sum(row.choice for row in rows)
    flips = sum(row.flips for row in rows)
    # The first order lists the target first, the second the other.
    pulls = [(row.orders[0].log_odds - row.orders[1].log_odds) / 2 for row in rows]
    return Summary(
        n=len(rows),
        num_target_chosen=chosen,
        rate=rate_interval(chosen, len(rows)),
        log_odds=mean_interval([row.log_odds for row in rows]),
        num_flips=flips,
        flip_share=flips / len(rows),
        listed_first_log_odds=mean_interval(pulls).estimate,
    )


def summarise_tiers(rows: Sequence[ItemRow]) -> dict[str, Summary]:
    """Return the statistics of each tier, in the order in which tiers appear."""
    tiers = dict.fromkeys(row.tier for row in rows)
    return {tier: summarise([row for row in rows if row.tier == tier]) for tier in tiers}


def load_result(path: Path) -> ChoiceResult:
    """Read RESULT.json.

    Raises:
        DataFormatError: It is missing, broken, or not a forced-choice result.
    """
    remedy = "Give a file that `msm eval choice` wrote."
    content = read_file(path, what="result", remedy=remedy)
    return check_model(
        ChoiceResult, parse_json(content, where=str(path)), where=str(path), remedy=remedy
    )
