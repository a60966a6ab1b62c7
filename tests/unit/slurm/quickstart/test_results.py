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
from slurm.quickstart.results import result_table


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


def test_each_model_and_group_has_a_row_with_its_interval(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", estimate=1.0)
    write_result(tmp_path / "b.json", estimate=0.25, low=0.125, high=0.5, n=8)
    screen = io.StringIO()
    models = [("base", tmp_path / "a.json"), ("spec [x]", tmp_path / "b.json")]
    Console(file=screen, width=100).print(result_table(models))
    lines = screen.getvalue().splitlines()
    heading, *rows = ([cell.strip() for cell in re.split("  +", line.strip())] for line in lines)
    assert heading == ["model", "items", "picks [home]"]
    assert rows == [
        ["base", "near (1)", "100%"],
        ["base", "all (12)", "50% [25%, 75%]"],
        ["spec [x]", "near (8)", "25% [12%, 50%]"],
        ["spec [x]", "all (12)", "50% [25%, 75%]"],
    ]


def test_the_time_is_six_flops_a_weight_and_token_at_two_fifths_of_the_rate() -> None:
    assert training_seconds(10**6, 1000, flops_per_s=3e9) == pytest.approx(5.0)
