"""The quickstart's last table and its estimate of the time."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from megatron_msm.formats.eval_result import (
    EvalResult,
    Metric,
    ModelRecord,
    Protocol,
    Row,
    Summary,
)
from slurm.quickstart.estimate import training_seconds
from slurm.quickstart.results import leading_verdicts, load_results, result_table


def write_result(path: Path, **near: float | int | None) -> None:
    protocol = Protocol(
        task="choice", version=1, items_sha256="a", chat_template_sha256="c", settings={}
    )
    metric = Metric(
        name="rate",
        title="picks [home]",
        unit="share",
        better=None,
        clustered_by="item",
        overall=Summary(estimate=0.5, low=0.25, high=0.75, n=12),
        groups={"near": Summary.model_validate({"n": 1, "low": None, "high": None} | near)},
    )
    model = ModelRecord(
        label="m",
        path="/m",
        weights_sha256="b",
        weight_files={},
        chat_template_sha256="c",
        lineage=None,
    )
    path.write_text(
        EvalResult(
            name="choice",
            protocol=protocol,
            protocol_sha256=protocol.sha256,
            model=model,
            items="items.jsonl",
            meaning="",
            headline="rate",
            metrics=(metric,),
            n=1,
            note="",
            rows=(Row(id="one", group="near", cluster="one", numbers={"rate": 1.0}),),
        ).model_dump_json()
    )


def test_each_model_has_a_row_with_its_groups(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", estimate=1.0)
    write_result(tmp_path / "b.json", estimate=0.25, low=0.125, high=0.5, n=8)
    screen = io.StringIO()
    models = [("base", tmp_path / "a.json"), ("spec [x]", tmp_path / "b.json")]
    Console(file=screen, width=100).print(result_table(load_results(models)))
    lines = screen.getvalue().splitlines()
    heading, *rows = ([cell.strip() for cell in re.split("  +", line.strip())] for line in lines)
    assert heading == ["model", "near (1)"]
    assert rows == [["base", "100%"], ["spec [x]", "25%"]]


def test_contrasts_come_first_and_changes_from_the_base_without_them() -> None:
    verdicts = [
        "a, compared with base: up",
        "  near: up",
        "a against b: down",
        "  near: down",
        "CAUTION: x",
    ]
    contrasts = ["a against b=+a,-b"]
    told = ["a against b: down", "  near: down", "CAUTION: x"]
    assert leading_verdicts(verdicts, contrasts) == told
    assert leading_verdicts(verdicts, []) == verdicts


def test_the_time_is_six_flops_a_weight_and_token_at_two_fifths_of_the_rate() -> None:
    assert training_seconds(10**6, 1000, flops_per_s=3e9) == pytest.approx(5.0)
