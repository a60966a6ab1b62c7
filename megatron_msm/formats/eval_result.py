"""NAME.json of an evaluation: all that a report, a grid or a screen may know of it.

Every task writes this one form. Rows are items with named numbers; metrics are statistics over the
rows, for all of them and by group (a tier, a condition). What was asked and how is the protocol,
one object with one hash: two results are comparable when their protocols are equal.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_json
from megatron_msm.formats.json_input import check_model, parse_json, read_file

_EARLIER_KIND = "msm-eval-choice"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _nan_for_none(value: object) -> object:
    return math.nan if value is None else value  # JSON has no NaN


class Interval(_Frozen):
    """An estimate and its 95% interval. Without at least two values there is no interval."""

    estimate: Annotated[float, BeforeValidator(_nan_for_none)]
    """NaN, in JSON null, where there was no value at all."""
    low: float | None
    high: float | None

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low is not None and self.low > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.high is not None and self.high < 0


class Summary(Interval):
    """A metric over some rows."""

    n: int
    """Rows that have the number; the others are unscored."""
    num_unscored: int = 0


class Metric(_Frozen):
    """What a number means, and its statistics."""

    name: str
    """Key of the rows' `numbers`."""
    title: str
    """Its name in tables."""
    unit: str
    """`share`, `nats per token`, `points of 10`."""
    better: Literal["higher", "lower"] | None
    """None where neither is: a preference."""
    higher_means: str = ""
    """What a larger number speaks for, such as an option's label; empty where `better` says it."""
    lower_means: str = ""
    clustered_by: str
    """What the interval takes as independent: `item`, `condition`."""
    overall: Summary
    groups: dict[str, Summary] = Field(default_factory=dict)
    """By the rows' `group`, in the order of the items."""


class Row(_Frozen):
    """One item."""

    id: str
    """The same in every result of the same items: results are paired by it."""
    group: str
    """Tier or condition."""
    cluster: str
    """Rows of one cluster are not independent; the row's own id where they are."""
    numbers: dict[str, float | None]
    """By metric; None where the item could not be scored."""
    details: dict[str, Any] = Field(default_factory=dict)
    """What the task alone knows: scores behind the numbers, texts to read."""


class Protocol(_Frozen):
    """What was asked and how."""

    task: str
    version: int
    """Raised when the task's code changes what is asked or how it is scored."""
    items_sha256: str
    chat_template_sha256: str | None
    """The template in force; None where the model was asked without one."""
    temperature: float | None = None
    """At which answers were sampled; None where nothing is sampled."""
    samples_per_item: int = 1
    judge: str | None = None
    """Which model judged, with its settings; None where none did."""
    settings: dict[str, Any]
    """Prompts, split and all else that decides a number."""

    @property
    def sha256(self) -> str:
        """Hash over all that is not a default, so that a new field leaves earlier hashes alone."""
        return sha256_of_json(self.model_dump(mode="json", exclude_defaults=True))


class ModelRecord(_Frozen):
    """Which model was judged."""

    label: str
    path: str
    """Its folder, or the address of the server and the model's name there."""
    weights_sha256: str | None
    """Over the names and hashes of the weight files; None where only a server has them."""
    weight_files: dict[str, str] = Field(default_factory=dict)
    chat_template_sha256: str | None
    lineage: list[dict[str, Any]] | None
    """What made it, from msm_export.json; None when the folder has none."""


class EvalResult(_Frozen):
    """The content of NAME.json."""

    kind: Literal["msm-eval"] = "msm-eval"
    format_version: Literal[1] = 1
    name: str
    """The evaluation's name in its suite."""
    protocol: Protocol
    protocol_sha256: str
    model: ModelRecord
    items: str
    """Where the items came from."""
    meaning: str
    """Which way the headline points, in words."""
    headline: str
    """The metric that is compared first."""
    metrics: tuple[Metric, ...]
    n: int
    note: str
    """What the intervals do not cover."""
    runtime: dict[str, Any] = Field(default_factory=dict)
    """Device, batch size, seconds, versions: not part of the identity of the result."""
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.protocol_sha256 != self.protocol.sha256:
            raise ValueError("`protocol_sha256` is not the hash of `protocol`: it was edited")
        if self.headline not in [metric.name for metric in self.metrics]:
            raise ValueError(f"`headline` is {self.headline!r}, which is none of the metrics")
        twice = [row for row, count in Counter(row.id for row in self.rows).items() if count > 1]
        if twice:
            raise ValueError(f"two rows have the id {twice[0]!r}")
        return self

    @property
    def headline_metric(self) -> Metric:
        """The metric that is compared first."""
        return self.metric(self.headline)

    def metric(self, name: str) -> Metric:
        """Return the metric of that name; there is one."""
        return next(metric for metric in self.metrics if metric.name == name)


def load_eval_result(path: Path) -> EvalResult:
    """Read NAME.json.

    Raises:
        DataFormatError: It is missing, broken, or not an evaluation's result.
    """
    remedy = "Give a file that `msm eval run` or `msm eval choice` wrote."
    content = parse_json(read_file(path, what="result", remedy=remedy), where=str(path))
    if isinstance(content, dict) and content.get("kind") == _EARLIER_KIND:
        raise DataFormatError(
            f"{path}: field `kind`: found {_EARLIER_KIND!r}, an earlier form. "
            "Score the model again: msm eval choice MODEL --items FILE.jsonl --out RESULT.json"
        )
    return check_model(EvalResult, content, where=str(path), remedy=remedy)
