import re
from pathlib import Path

import pytest

from evals.reference.figures import published_figures
from evals.report.comparison import compare
from evals.report.published import lay_beside
from evals.tasks.reasons.categories import categories
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import write_json_atomic
from tests.unit.evals.conftest import Run
from tests.unit.evals.tasks.choice.results import result

ARMS = {"baseline": 0.0, "AFT": 0.1, "MSM(America)": 0.4, "mine": 0.3}


def report(msm_eval: Run, tmp_path: Path, reference: str) -> tuple[int, str, str]:
    arguments: list[str | Path] = ["report", tmp_path / "r.html", "--reference", reference]
    for name, level in ARMS.items():
        one = result(name, [level, level + 0.1])
        write_json_atomic(tmp_path / f"{name}.json", one.model_dump(mode="json"))
        arguments += ["--result", tmp_path / f"{name}.json"]
    ended = msm_eval(*arguments)
    page = (tmp_path / "r.html").read_text() if ended.status == 0 else ""
    return ended.status, ended.err, re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page))


def test_the_figures_are_those_of_the_paper() -> None:
    figures = published_figures()
    assert len(figures) == 75
    assert figures["fig2-america"].arms["MSM(America)+AFT"] == 0.55
    assert figures["fig4-agentic-qwen3-32b"].arms["MSM+AFT CoT"] == 0.07
    assert figures["fig7-qwen2.5-14b"].arms == {"baseline": 0.51, "R": 0.35, "V+": 0.22, "R+": 0.26}
    assert figures["fig8-qwen3-32b-cot"].arms["general+specific"] == 0.07
    assert figures["fig19-voice"].arms["MSM(stories about humans)+AFT"] == 0.12
    assert figures["fig5-qwen2.5-32b-espionage"].arms["leaking/pragmatic"] == 0.611
    assert figures["fig10-tradition"].arms == {"original": 0.12, "ablated": 0.07}
    assert figures["fig11-qwen3-32b-equanimity"].arms["MSM+AFT no-CoT"] == 0.48
    assert figures["fig11-qwen2.5-32b-moral-reframing"].arms["AFT CoT"] == 0.21
    assert figures["fig14-qwen2.5-14b-cot"].arms["M(V+)A(R+)"] == 0.14
    assert figures["fig14-qwen3-32b-no-cot"].arms["MSM V+"] == 0.22
    for figure in figures.values():
        assert figure.of != "arms" or next(iter(figure.arms)) == "baseline"


def test_figures_of_one_study_agree_where_they_show_the_same() -> None:
    """Figure 7 is the diagonal of Figure 14: a digit read wrongly would show."""
    figures = published_figures()
    for model in ("qwen2.5-32b", "qwen3-32b", "qwen2.5-14b", "qwen3-14b"):
        seven, fourteen = figures[f"fig7-{model}"].arms, figures[f"fig14-{model}-cot"].arms
        assert {spec: fourteen[f"M({spec})A({spec})"] for spec in ("R", "V+", "R+")} == {
            spec: seven[spec] for spec in ("R", "V+", "R+")
        }
        assert fourteen["baseline"] == seven["baseline"]


def test_reasons_have_the_names_of_our_metrics() -> None:
    names = {figure.metric for figure in published_figures().values()} - {None}
    assert names <= {one.id for one in categories()}
    assert len(names) == 16


def test_figures_of_contrasts_and_of_groups_are_laid_beside_those() -> None:
    levels = {"a": 0.5, "b": 0.7, "c": 1.5}
    arms = [
        result(name, {"leaking/none": [one, one], "exfiltration/none": [2 * one, 2 * one + 0.1]})
        for name, one in levels.items()
    ]
    evaluations = compare(arms, ["original=+c,-a", "mine=+b,-a"])
    (ten,) = lay_beside(evaluations, "choice=fig10-simplicity:ablated=mine")
    assert (ten.num_pairs, ten.num_alike) == (1, 1)
    change = ten.sides[1].change
    assert change is not None
    assert change.estimate == pytest.approx((0.2 + 0.4) / 2 - (1.0 + 2.0) / 2)
    three = lay_beside(evaluations, "choice=fig5-qwen3-32b-[!m]*")
    assert [one.figure.id[-5:] for one in three] == ["ation", "onage"]
    assert [side.own for side in three[1].sides if side.own] == ["leaking/none"]
    with pytest.raises(ConfigError, match="is of 'deception', and 'choice' has log_odds"):
        lay_beside(evaluations, "choice=fig11-qwen3-32b-deception")


def test_own_arms_stand_beside_the_papers_by_name_or_as_told(msm_eval: Run, tmp_path: Path) -> None:
    status, err, page = report(msm_eval, tmp_path, "choice=fig2-america:MSM(America)+AFT=mine")
    assert (status, err) == (0, "")
    # Published .38 .36 .52 .55, own .05 .15 .45 .35: the first two are turned, and the last two.
    assert "4 of 6 pairs of arms lie in the same order" in page
    assert "MSM(America)+AFT mine +0.17 +0.30 [+0.30, +0.30] 0.55 0.35" in page
    assert re.search(r"MSM\(affordability\) \S -0.02 \S 0.36 \S ", page)


@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ("fig2-america", "The evaluations are choice"),
        ("values=fig2-america", "The evaluations are choice"),
        ("choice=fig9", "no figure 'fig9'. There are fig2-affordability"),
        ("choice=fig2-america:MSM=mine", "'MSM=mine' is not PUBLISHED=OWN"),
        ("choice=fig2-america:AFT=theirs", "your arms are baseline"),
    ],
)
def test_a_wrong_reference_is_refused(
    msm_eval: Run, tmp_path: Path, reference: str, part: str
) -> None:
    status, err, _ = report(msm_eval, tmp_path, reference)
    assert status == 2
    assert part in err
    assert not (tmp_path / "r.html").exists()
