"""`msm eval power`, from a pilot and from given spreads."""

import json
from pathlib import Path

import pytest

from megatron_msm.formats.files import write_json_atomic
from tests.unit.evals.conftest import Run
from tests.unit.evals.tasks.choice.results import result


def pilot(folder: Path) -> list[str]:
    arms = {
        "base": [0.0, 0.0, 0.0],
        "msm#1": [1.0, 2.0, 3.0],
        "msm#2": [1.2, 2.2, 3.2],
    }
    options = []
    for number, (label, values) in enumerate(arms.items()):
        path = folder / f"{number}.json"
        write_json_atomic(path, result(label, values).model_dump(mode="json"))
        options += ["--result", str(path)]
    return options


def test_spreads_come_from_a_pilot(msm_eval: Run, tmp_path: Path) -> None:
    ended = msm_eval("power", *pilot(tmp_path), "--effect", "1.5", "--json")
    assert (ended.status, ended.err) == (0, "")
    plan = json.loads(ended.out)
    assert plan["sd_items"] == pytest.approx(1.0)
    assert plan["sd_seeds"] == pytest.approx(0.1 * 2**0.5)  # means 2.0 and 2.2
    assert plan["num_items"] == 3
    one, two, *_ = plan["lines"]
    # (1.95996 + 0.84162) * 1 / sqrt(3), and 2.80158^2 / 1.5^2 = 3.49 items.
    assert one["detectable"] == pytest.approx(1.61749, abs=1e-4)
    assert one["items_needed"] == 4
    assert two["detectable"] > one["detectable"]


def test_the_table_says_what_is_not_known(msm_eval: Run) -> None:
    ended = msm_eval("power", "--sd-items", "0.5", "--items", "100")
    assert ended.status == 0
    assert "0.14" in ended.out
    assert "over training seeds unknown" in ended.out


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "--sd-items and --items"),
        (["--sd-items", "1"], "--sd-items and --items"),
        (["--result", "0.json"], "two arms of one evaluation"),
        (["--result", "gone.json"], "gone.json"),
    ],
)
def test_what_is_missing_is_named(
    msm_eval: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    part: str,
) -> None:
    pilot(tmp_path)
    monkeypatch.chdir(tmp_path)
    ended = msm_eval("power", *options)
    assert ended.status == 2
    assert part in ended.err
    assert "Traceback" not in ended.err
