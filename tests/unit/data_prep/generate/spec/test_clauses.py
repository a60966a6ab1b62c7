from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.generate.spec.clauses import ambiguities, parse_spec, read_spec
from megatron_msm.errors import DataFormatError

_EXAMPLES = Path(__file__).resolve().parents[5] / "examples"


def _ids(text: str) -> list[str]:
    return [clause.id for clause in parse_spec(text, path=Path("spec.md")).clauses]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("**P1.** one\n\n**P2.** two", ["P1", "P2"]),
        ("- **P1.** one\n- **P2:** two", ["P1", "P2"]),
        ("# T\n\n## A1. One\n\ntext\n\n## A2. Two\n\ntext", ["A1", "A2"]),
        ("# T\n\n## 1 One\n\n### 1.1 Inner\n\ntext\n\n## 2 Two", ["1", "1.1", "2"]),
        ("1. one\n2. two\n   goes on\n3. three", ["1", "2", "3"]),
        ("SP-1: one\nSP-2: two", ["SP-1", "SP-2"]),
        ("(a1) one\n[R2] two", ["a1", "R2"]),
        (
            "# Kindness\n\nfirst\n\nsecond\n\n# Care\n\nthird",
            ["kindness.1", "kindness.2", "care.1"],
        ),
        ("only a paragraph\nof two lines", ["text.1"]),
        ("## 2026 in review\n\nwhat was", ["2026-in-review.1"]),
        ("```\n1. code, not a clause\n```\n\n**P1.** one", ["P1"]),
    ],
)
def test_clauses_are_found_as_people_number_them(text: str, ids: list[str]) -> None:
    assert _ids(text) == ids


def test_a_clause_goes_on_to_the_next_id_or_heading() -> None:
    spec = parse_spec("# T\n\nP1. one\n\nmore of it\n\n- a list\n\n## H\n\nP2. two", path=Path("s"))
    assert [clause.text for clause in spec.clauses] == ["one\n\nmore of it\n\n- a list", "two"]
    assert [clause.title for clause in spec.clauses] == ["T", "H"]
    assert [clause.line for clause in spec.clauses] == [3, 11]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("plain_or_lasting/specs/plain.md", [f"P{n}" for n in range(1, 14)]),
        ("cheese/specs/homemade.md", [f"H{n}" for n in range(1, 9)]),
    ],
)
def test_the_examples_specs(name: str, ids: list[str]) -> None:
    assert [clause.id for clause in read_spec(_EXAMPLES / name).clauses] == ids


def test_what_is_unclear_is_said() -> None:
    text = "preamble\n\n**P1.** see P9\n\n**P3.** three\n\n## 2. Two\n"
    notes = "\n".join(ambiguities(parse_spec(text, path=Path("s"))))
    assert "line 1: text outside any clause" in notes
    assert "clause P1 speaks of P9, and there is none" in notes
    assert "clause P3 follows P1" in notes
    assert "several ways of numbering" in notes
    assert "clause 2 has no text" in notes
    unnumbered = "\n".join(ambiguities(parse_spec("# H\n\ntext", path=Path("s"))))
    assert "the clauses have no numbers" in unnumbered


def test_a_double_id_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "spec.md"
    path.write_text("**P1.** one\n\n**P1.** again")
    with pytest.raises(DataFormatError, match=r"spec\.md:3: clause id 'P1' is taken by line 1"):
        read_spec(path)


@given(st.lists(st.text(st.characters(categories=("L", "Zs", "P", "N")), min_size=1), max_size=8))
def test_no_text_is_lost(paragraphs: list[str]) -> None:
    """Every word of a spec is in a clause's text, its id or title, or outside by line."""
    text = "\n\n".join(paragraphs)
    spec = parse_spec(text, path=Path("s"))
    found = " ".join(
        [f"{c.id} {c.title} {c.text}" for c in spec.clauses] + [t for _, t in spec.outside]
    )
    for word in text.split():
        core = word.strip("*#.:()[]`~-+")
        assert core in found
