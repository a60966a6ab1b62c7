from pathlib import Path

import pytest

from evals.tasks.choice.result import choice_of, load_result, summarise, summarise_tiers
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import write_json_atomic
from tests.unit.evals.choice.results import result, row


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
    assert (one.log_odds, one.choice, one.flips) == (log_odds, choice, flips)


def test_summary_counts_by_hand() -> None:
    rows = [row("a", 2.0, 1.0), row("b", 1.0, -0.5), row("c", -1.0, -2.0), row("d", 0.5, -0.5)]
    summary = summarise(rows)
    assert summary.n == 4
    assert summary.num_target_chosen == 2.5
    assert summary.rate.estimate == 0.625
    assert summary.log_odds.estimate == pytest.approx((1.5 + 0.25 - 1.5 + 0.0) / 4)
    assert (summary.num_flips, summary.flip_share) == (2, 0.5)
    # Half of (target listed first) - (other listed first): 0.5, 0.75, 0.5, 0.5.
    assert summary.listed_first_log_odds == pytest.approx(2.25 / 4)


def test_tiers_keep_the_order_of_the_file() -> None:
    rows = [row("a", 1.0, tier="near"), row("b", -1.0, tier="far"), row("c", 3.0, tier="near")]
    tiers = summarise_tiers(rows)
    assert list(tiers) == ["near", "far"]
    assert tiers["near"].log_odds.estimate == 2.0
    assert tiers["far"].log_odds.low is None


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    before = result("base", {"near": [0.1, 0.25], "far": [-0.3, 0.7]})
    path = tmp_path / "result.json"
    write_json_atomic(path, before.model_dump(mode="json"))
    assert load_result(path) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "invalid JSON"),
        ("[]", "valid dictionary"),
        ('{"kind": "other"}', "`kind`"),
        ('{"kind": "msm-eval-choice", "format_version": 2}', "`format_version`"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(DataFormatError) as error:
        load_result(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
