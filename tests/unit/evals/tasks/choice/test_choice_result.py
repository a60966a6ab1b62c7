from pathlib import Path

import pytest

from evals.tasks.choice.result import choice_metrics, choice_of
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import load_eval_result
from megatron_msm.formats.files import write_json_atomic
from tests.unit.evals.tasks.choice.results import result, row


@pytest.mark.parametrize(("log_odds", "choice"), [(0.01, 1.0), (-3.0, 0.0), (0.0, 0.5)])
def test_choice_is_the_sign_and_a_tie_is_one_half(log_odds: float, choice: float) -> None:
    assert choice_of(log_odds) == choice


@pytest.mark.parametrize(
    ("first", "second", "log_odds", "choice", "flips"),
    [
        (1.0, 0.5, 0.75, 1.0, False),
        (1.0, -0.5, 0.25, 1.0, True),
        (-1.0, 0.5, -0.25, 0.0, True),
        (-1.0, -0.5, -0.75, 0.0, False),
        (1.0, -1.0, 0.0, 0.5, True),
        (0.0, 0.0, 0.0, 0.5, False),
    ],
)
def test_a_row_is_the_mean_of_both_orders(
    first: float, second: float, log_odds: float, choice: float, flips: bool
) -> None:
    one = row("a", first, second)
    assert (
        one.numbers["log_odds"],
        one.numbers["chose_target"],
        one.numbers["flips"],
    ) == (log_odds, choice, flips)


def test_summary_counts_by_hand() -> None:
    rows = [row("a", 2.0, 1.0), row("b", 1.0, -0.5), row("c", -1.0, -2.0), row("d", 0.5, -0.5)]
    log_odds, chosen, flips, pull = choice_metrics(rows, target="homemade", other="affordability")
    assert log_odds.overall.n == 4
    assert chosen.overall.estimate == 2.5 / 4
    assert log_odds.overall.estimate == pytest.approx((1.5 + 0.25 - 1.5 + 0.0) / 4)
    assert flips.overall.estimate == 2 / 4
    # Half of (target listed first) - (other listed first): 0.5, 0.75, 0.5, 0.5.
    assert pull.overall.estimate == pytest.approx(2.25 / 4)


def test_tiers_keep_the_order_of_the_file() -> None:
    rows = [row("a", 1.0, tier="near"), row("b", -1.0, tier="far"), row("c", 3.0, tier="near")]
    log_odds = choice_metrics(rows, target="homemade", other="affordability")[0]
    assert list(log_odds.groups) == ["near", "far"]
    assert log_odds.groups["near"].estimate == 2.0
    assert log_odds.groups["far"].low is None


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    before = result("base", {"near": [0.1, 0.25], "far": [-0.3, 0.7]})
    path = tmp_path / "result.json"
    write_json_atomic(path, before.model_dump(mode="json"))
    assert load_eval_result(path) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "invalid JSON"),
        ("[]", "valid dictionary"),
        ('{"kind": "other"}', "`kind`"),
        ('{"kind": "msm-eval", "format_version": 2}', "`format_version`"),
        ('{"kind": "msm-eval-choice"}', "msm eval choice MODEL --items FILE.jsonl --out"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(DataFormatError) as error:
        load_eval_result(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
