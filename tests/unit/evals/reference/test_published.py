import re
from pathlib import Path

import pytest

from evals.reference.figures import published_figures
from megatron_msm.formats.files import write_json_atomic
from tests.unit.evals.choice.results import result
from tests.unit.evals.conftest import Run

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
    assert len(figures) == 21
    assert figures["fig2-america"].arms["MSM(America)+AFT"] == 0.55
    assert figures["fig4-agentic-qwen3-32b"].arms["MSM+AFT CoT"] == 0.07
    assert figures["fig7-qwen2.5-14b"].arms == {"baseline": 0.51, "R": 0.35, "V+": 0.22, "R+": 0.26}
    assert figures["fig8-qwen3-32b-cot"].arms["general+specific"] == 0.07
    assert figures["fig19-voice"].arms["MSM(stories about humans)+AFT"] == 0.12
    for figure in figures.values():
        assert next(iter(figure.arms)) == "baseline"


def test_own_arms_stand_beside_the_papers_by_name_or_as_told(msm_eval: Run, tmp_path: Path) -> None:
    status, err, page = report(msm_eval, tmp_path, "choice=fig2-america:MSM(America)+AFT=mine")
    assert (status, err) == (0, "")
    # Published .38 .36 .52 .55, own .05 .15 .45 .35: the first two are turned, and the last two.
    assert "4 of 6 pairs of arms lie in the same order" in page
    assert "MSM(America)+AFT mine +0.17 +0.30 0.55 +0.35" in page
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
