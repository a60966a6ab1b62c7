import json
import math
from pathlib import Path

import pytest

from evals.report.inputs import load_curve, load_facts, load_results
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.files import write_json_atomic
from tests.unit.evals.tasks.choice.results import result


def metrics_file(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def step(number: int, loss: float | None, phase: str = "midtrain") -> dict[str, object]:
    return {"phase": phase, "step": number, "loss/lm_nats": loss, "optim/lr": 1e-5}


def test_a_curve_is_one_phase_in_step_order(tmp_path: Path) -> None:
    path = metrics_file(
        tmp_path / "metrics.jsonl", step(2, 2.0), step(1, 3.0), step(1, 9.0, "sft"), step(2, 2.5)
    )
    curve = load_curve(f"midtrain={path}")
    assert (curve.phase, curve.steps, curve.losses) == ("midtrain", (1, 2), (3.0, 2.5))


def test_a_loss_of_nan_is_null_in_json_and_counted(tmp_path: Path) -> None:
    path = metrics_file(tmp_path / "metrics.jsonl", step(1, 3.0), step(2, None))
    curve = load_curve(f"midtrain={path}")
    assert math.isnan(curve.losses[1])
    assert curve.num_not_finite == 1


@pytest.mark.parametrize("argument", ["metrics.jsonl", "=metrics.jsonl", "midtrain="])
def test_metrics_need_a_phase(argument: str) -> None:
    with pytest.raises(ConfigError, match=r"PHASE=metrics\.jsonl"):
        load_curve(argument)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"phase": "midtrain", "step": 1}, ["line 2", "`loss/lm_nats`", "nothing"]),
        (step(1, "x"), ["line 2", "`loss/lm_nats`", '"x"']),  # type: ignore[arg-type]
        ({"step": 1, "loss/lm_nats": 1.0}, ["line 2", "`phase`"]),
        ([1], ["line 2", "[1]"]),
    ],
)
def test_a_wrong_metrics_row_is_named(tmp_path: Path, row: object, parts: list[str]) -> None:
    path = metrics_file(tmp_path / "metrics.jsonl", step(1, 3.0), row)
    with pytest.raises(DataFormatError) as error:
        load_curve(f"midtrain={path}")
    for part in [str(path), *parts]:
        assert part in str(error.value)


def test_an_unknown_phase_names_the_known_ones(tmp_path: Path) -> None:
    path = metrics_file(tmp_path / "metrics.jsonl", step(1, 3.0))
    with pytest.raises(DataFormatError, match=r"'sft'.*\['midtrain'\]"):
        load_curve(f"sft={path}")


def test_facts(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text('[{"stage": "prep", "made": "10 documents", "where": "a.bin", "seconds": 1.5}]')
    (fact,) = load_facts(path)
    assert (fact.stage, fact.made, fact.where, fact.seconds) == (
        "prep",
        "10 documents",
        "a.bin",
        1.5,
    )
    path.write_text('[{"stage": "prep", "made": "10 documents"}]')
    with pytest.raises(DataFormatError, match=r"facts\.json: field `0\.where`"):
        load_facts(path)


def test_two_results_need_two_labels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_json_atomic(tmp_path / name, result("base", [0.0, 1.0]).model_dump(mode="json"))
    with pytest.raises(ConfigError, match="--label"):
        load_results([str(tmp_path / "a"), str(tmp_path / "b")])
