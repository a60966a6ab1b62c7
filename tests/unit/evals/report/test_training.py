"""How arms were trained, and clauses joined to a dataset that `msm prep` really made."""

from pathlib import Path
from typing import Any

import pytest

from data_prep.cli import app
from evals.report.caveats import evaluation_caveats
from evals.report.clauses import clause_tables, read_clauses
from evals.report.comparison import compare
from evals.report.doses import dose_curves
from evals.report.training import kind_of, unmatched
from megatron_msm.formats.eval_result import EvalResult, ModelRecord
from megatron_msm.formats.manifest import read_manifest
from tests.unit.evals.tasks.choice.results import result


def stage(name: str, *, steps: int = 10, tokens: int = 1000, lr: float = 1e-4,
          data: dict[str, str] | None = None) -> dict[str, Any]:  # fmt: skip
    details = {"steps": steps, "processed_tokens": tokens, "lr": lr, "data": data or {}}
    return {"stage": name, "identity": "i", "details": details}


def trained(label: str, *stages: dict[str, Any], **groups: list[float]) -> EvalResult:
    one = result(label, groups or {"near": [0.0, 0.1]})
    lineage = [{"stage": "import", "identity": "b"}, *stages]
    return one.model_copy(update={"model": one.model.model_copy(update={"lineage": lineage})})


@pytest.mark.parametrize(
    ("label", "stages", "kind"),
    [
        ("m", (), "base"),
        ("m+msm(plain)", ("midtrain",), "MSM"),
        ("m+msm(plain)+aft(x)[steps=3]#2", ("midtrain", "sft"), "MSM + AFT"),
        ("m+msm(neutral)+aft(x)", ("midtrain", "sft"), "neutral documents + AFT"),
        ("m+msm(a)+aft(x)+then(counter)", ("midtrain", "sft", "counter"), "MSM + AFT + counter"),
        ("m+aft(instruction-mix)", ("sft",), "instruction mix"),
        ("mine", ("midtrain", "sft"), "midtrain + sft"),
    ],
)
def test_arms_have_a_kind_by_name_or_by_lineage(
    label: str, stages: tuple[str, ...], kind: str
) -> None:
    assert kind_of(trained(label, *map(stage, stages)).model) == kind
    unknown = ModelRecord(label="mine", path="", weights_sha256=None, chat_template_sha256=None,
                          lineage=None)  # fmt: skip
    assert kind_of(unknown) is None


def test_stages_of_one_name_are_compared_and_of_another_are_not() -> None:
    one = trained("a", stage("midtrain", tokens=100_000), stage("sft"))
    two = trained("b", stage("midtrain", tokens=100_400), stage("sft", steps=12, lr=2e-4))
    alone = trained("c", stage("dpo", steps=99))
    assert unmatched([one.model, alone.model]) == []
    assert unmatched([one.model, two.model]) == [
        "sft: steps from 10 to 12",
        "sft: learning rate from 0.0001 to 0.0002",
    ]


def test_a_contrast_of_arms_that_are_not_matched_says_so() -> None:
    arms = [trained("a", stage("sft")), trained("b", stage("sft", steps=99)), trained("c")]
    (found,) = compare(arms, ["x=+b,-a", "y=+c,-a"])
    assert list(evaluation_caveats(found)) == [
        "x: training is NOT MATCHED: sft: steps from 10 to 99"
    ]


def test_order_flips_and_unscored_items_are_told() -> None:
    one = result("a", [0.1, 0.2, 0.3, 0.4])
    rows = [row.model_copy(update={"numbers": {**row.numbers, "log_odds": None}})
            for row in one.rows[:1]]  # fmt: skip
    headline, *others = one.metrics
    unscored = headline.overall.model_copy(update={"n": 3, "num_unscored": 1})
    flips = [
        other.model_copy(update={"overall": other.overall.model_copy(update={"estimate": 0.5})})
        if other.name == "flips" else other for other in others
    ]  # fmt: skip
    metrics = (headline.model_copy(update={"overall": unscored}), *flips)
    one = one.model_copy(update={"metrics": metrics, "rows": (*rows, *one.rows[1:])})
    (found,) = compare([one])
    assert list(evaluation_caveats(found)) == [
        "a: 25% of its items could not be scored and are not in its number",
        "a: order flips: in 50% of its items the order of the options decides",
    ]


def test_doses_are_arms_that_differ_in_one_number_alone() -> None:
    levels = {"m+msm(a)[steps=600]": 0.9, "m+msm(a)[steps=30]": 0.3, "m+msm(b)[steps=30]": 0.1,
              "m": 0.0, "m+msm(a)+aft(x)[steps=30][lr=1e-4]": 0.5,
              "m+msm(a)+aft(x)[steps=30][lr=3e-4]": 0.6}  # fmt: skip
    (found,) = compare([result(label, [one, one]) for label, one in levels.items()])
    steps, rates = dose_curves(found)
    assert (steps.what, rates.what) == ("steps", "lr")
    assert {name: [(p.dose, p.interval.estimate) for p in of] for name, of in steps.families.items()
            } == {"m+msm(a)": [(30.0, 0.3), (600.0, 0.9)]}  # fmt: skip
    assert list(rates.families) == ["m+msm(a)+aft(x)[steps=30]"]


def test_clauses_are_counted_in_the_data_that_an_arm_was_trained_on(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        '{"id": "1", "text": "one two", "clause_ids": ["P1"]}',
        '{"id": "2", "text": "one two three", "clause_ids": ["P1", "P2"]}',
        '{"id": "3", "text": "none"}',
    ]
    (tmp_path / "docs.jsonl").write_text("\n".join(lines) + "\n")
    app(
        ["docs", str(tmp_path / "docs.jsonl"), "--out", str(tmp_path / "data"), "--tokenizer",
         str(tiny_model)], standalone_mode=False,
    )  # fmt: skip
    manifest = read_manifest(tmp_path / "data")
    data = {str(tmp_path / "data"): manifest.sha256}
    groups = {"P1": [0.5, 0.6], "P2": [0.1, 0.2], "P9": [0.0, 0.1]}
    arms = [trained("base", **groups), trained("msm", stage("midtrain", data=data), **groups)]
    training = read_clauses([one.model for one in arms])
    assert training.unread == ()
    (table,) = clause_tables(compare(arms), training)
    first, second = table.amount("msm", "P1"), table.amount("msm", "P2")
    assert first is not None
    assert second is not None
    assert (first.rows, second.rows, second.stage) == (2, 1, "midtrain")
    assert first.tokens > second.tokens > 0
    assert table.amount("msm", "P9") is None
    assert table.amount("base", "P1") is None
    other = trained("msm", stage("midtrain", data={str(tmp_path / "data"): "00"}), **groups)
    changed = read_clauses([other.model])
    assert "is another dataset now" in changed.unread[0]
    assert clause_tables(compare([other]), changed) == []
    capsys.readouterr()
