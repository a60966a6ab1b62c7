"""Every number of a report as tables, CSV and Parquet, and its pictures as SVG files.

NAME.data/numbers   levels, changes and contrasts, one a line
NAME.data/rows      every number of every item
NAME.data/losses    the loss curves
NAME.data/clauses   rows and tokens of the training data that name a clause, by arm and stage
NAME.data/*.svg     the pictures, in the colours of a light page; and as *.pdf
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from evals.report.both_orders import both_orders
from evals.report.clauses import ClauseTable
from evals.report.comparison import Evaluation
from evals.report.findings import Finding
from evals.report.inputs import LossCurve
from evals.report.pictures import Picture
from evals.statistics.detection import Detection
from megatron_msm.formats.eval_result import Interval, Metric
from megatron_msm.formats.files import TMP_PREFIX, write_text_atomic

NUMBERS = pa.schema(
    [
        ("evaluation", pa.string()), ("kind", pa.string()), ("arm", pa.string()),
        ("group", pa.string()), ("metric", pa.string()), ("unit", pa.string()),
        ("estimate", pa.float64()), ("low", pa.float64()), ("high", pa.float64()),
        ("n", pa.int64()), ("num_unscored", pa.int64()), ("num_seeds", pa.int64()),
        ("p_value", pa.float64()), ("p_adjusted", pa.float64()), ("correction", pa.string()),
        ("num_comparisons", pa.int64()), ("noise_floor", pa.float64()),
        ("shows_effect", pa.bool_()), ("protocol_sha256", pa.string()),
    ]
)  # fmt: skip
ROWS = pa.schema(
    [
        ("evaluation", pa.string()), ("arm", pa.string()), ("label", pa.string()),
        ("weights_sha256", pa.string()), ("item", pa.string()), ("group", pa.string()),
        ("cluster", pa.string()), ("metric", pa.string()), ("number", pa.float64()),
    ]
)  # fmt: skip
LOSSES = pa.schema(
    [
        ("run", pa.string()), ("phase", pa.string()), ("step", pa.int64()),
        ("loss_nats", pa.float64()),
    ]
)  # fmt: skip
CLAUSES = pa.schema(
    [
        ("evaluation", pa.string()), ("arm", pa.string()), ("stage", pa.string()),
        ("clause", pa.string()), ("rows", pa.int64()), ("tokens", pa.int64()),
    ]
)  # fmt: skip


def data_folder(report: Path) -> Path:
    """Return where a report's tables and pictures are."""
    return report.with_suffix(".data")


def write_numbers(
    folder: Path,
    evaluations: Sequence[Evaluation],
    curves: Sequence[LossCurve],
    clauses: Sequence[ClauseTable],
    pictures: Mapping[str, Picture],
) -> None:
    """Write the tables and pictures of a report, in place of those of an earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.svg"), *folder.glob("*.pdf")):
        old.unlink()
    tables = {
        "numbers": (NUMBERS, [row for one in evaluations for row in _numbers(one)]),
        "rows": (ROWS, [row for one in evaluations for row in _rows(one)]),
        "clauses": (CLAUSES, [row for table in clauses for row in _clauses(table)]),
        "losses": (LOSSES, [row for curve in curves for row in _losses(curve)]),
    }
    for name, (schema, rows) in tables.items():
        table = pa.Table.from_pylist(rows, schema=schema)
        for suffix, write in (("csv", pa.csv.write_csv), ("parquet", pa.parquet.write_table)):
            aside = folder / f"{TMP_PREFIX}{name}.{suffix}"
            write(table, aside)
            shutil.move(aside, folder / f"{name}.{suffix}")
    for name, picture in pictures.items():
        write_text_atomic(folder / f"{name}.svg", picture.svg_file)
        aside = folder / f"{TMP_PREFIX}{name}.pdf"
        aside.write_bytes(picture.pdf_file)
        shutil.move(aside, folder / f"{name}.pdf")


def _numbers(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    first = evaluation.first
    shared = {"evaluation": first.name, "protocol_sha256": first.protocol_sha256}
    for group, lines in evaluation.groups.items():
        for line in lines:
            of_line = {**shared, "arm": line.label, "group": group, "num_seeds": line.num_seeds}
            levels = [(first.headline_metric, line.summary), *line.others]
            for metric, summary in levels:
                yield {
                    **of_line, **_interval("level", metric, summary),
                    "n": summary.n, "num_unscored": summary.num_unscored,
                }  # fmt: skip
            if line.change is not None:
                yield {**of_line, **_finding("change", first.headline_metric, line.change)}
    for kind, arm, detection in _detections(evaluation):
        for name, interval in (
            ("sensitivity", detection.sensitivity),
            ("criterion", detection.criterion),
        ):
            yield {
                **shared, "arm": arm, "kind": kind, "metric": name, "unit": "z",
                **_bounds(interval), "n": detection.num_items,
                "num_seeds": sum(detection.num_seeds.values()),
            }  # fmt: skip
    for asked in evaluation.contrasts:
        for group, one in asked.groups.items():
            yield {
                **shared, **_finding("contrast", first.headline_metric, one), "group": group,
                "arm": asked.title,
                "num_seeds": sum(one.found.num_seeds.values()),
            }  # fmt: skip


def _detections(evaluation: Evaluation) -> Iterator[tuple[str, str, Detection]]:
    """Yield (kind, arm or contrast, its d' and c)."""
    orders = both_orders(evaluation)
    if orders is not None:
        yield from (("level", arm, one) for arm, one in orders.levels.items())
        yield from (("change", arm, one) for arm, one in orders.changes.items())
        yield from (("contrast", title, one) for title, one in orders.contrasts.items())


def _finding(kind: str, metric: Metric, finding: Finding) -> dict[str, Any]:
    found = finding.found
    return {
        **_interval(kind, metric, found.interval), "n": found.num_items,
        "num_unscored": found.num_left_out, "p_value": found.p_value,
        "p_adjusted": finding.p_adjusted, "correction": finding.method,
        "num_comparisons": finding.num_comparisons, "noise_floor": found.noise_floor,
        "shows_effect": finding.shows_effect,
    }  # fmt: skip


def _interval(kind: str, metric: Metric, interval: Interval) -> dict[str, Any]:
    return {"kind": kind, "metric": metric.name, "unit": metric.unit, **_bounds(interval)}


def _bounds(interval: Interval) -> dict[str, float | None]:
    return {name: getattr(interval, name) for name in ("estimate", "low", "high")}


def _rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for arm, results in evaluation.arms.items():
        for result in results:
            for row in result.rows:
                for metric, number in row.numbers.items():
                    yield {
                        "evaluation": result.name, "arm": arm, "label": result.model.label,
                        "weights_sha256": result.model.weights_sha256, "item": row.id,
                        "group": row.group, "cluster": row.cluster, "metric": metric,
                        "number": number,
                    }  # fmt: skip


def _losses(curve: LossCurve) -> Iterator[dict[str, Any]]:
    for step, loss in zip(curve.steps, curve.losses, strict=True):
        yield {"run": curve.run, "phase": curve.phase, "step": step, "loss_nats": loss}


def _clauses(table: ClauseTable) -> Iterator[dict[str, Any]]:
    for one in table.amounts:
        yield {
            "evaluation": table.evaluation.first.name, "arm": one.arm, "stage": one.stage,
            "clause": one.clause, "rows": one.rows, "tokens": one.tokens,
        }  # fmt: skip
