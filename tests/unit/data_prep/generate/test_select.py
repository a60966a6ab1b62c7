"""`msm generate select`, `balance` and `health` as they are typed, on the paired example."""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from typer.testing import CliRunner, Result

from data_prep.cleaning.subset import write_subset
from data_prep.generate.cli import app
from megatron_msm.errors import ConfigError, DataFormatError

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "plain_or_lasting"
_FOLDER = tempfile.TemporaryDirectory()


def first_pairs(arm: str) -> Path:
    """Write the example's first 15 documents of each domain, 120 in all, to a file of their own."""
    lines = (EXAMPLE / f"{arm}.docs.jsonl").read_text().splitlines(keepends=True)
    path = Path(_FOLDER.name) / f"{arm}.docs.jsonl"
    path.write_text("".join(line for line in lines if int(json.loads(line)["id"][-2:]) <= 15))
    return path


ARMS = [first_pairs("plain"), first_pairs("lasting")]


def msm(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids(out: Path, name: str = "plain") -> list[str]:
    return [row["id"] for row in rows(out / f"{name}.jsonl")]


def written(path: Path, *content: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def test_twins_go_together_and_lines_stay_as_they_are(tmp_path: Path) -> None:
    """A clause is one corpus's own; its twins come along."""
    result = msm("select", *ARMS, "--where", "clause_ids=P3", "--out", tmp_path)
    plain, lasting = rows(tmp_path / "plain.jsonl"), rows(tmp_path / "lasting.jsonl")
    expected = [row["id"] for row in rows(ARMS[0]) if "P3" in row["clause_ids"]]
    assert [row["id"] for row in plain] == [row["id"] for row in lasting] == expected
    assert len(expected) == 15
    assert all("L3" in row["clause_ids"] for row in lasting)
    source = ARMS[1].read_bytes().splitlines()
    assert all(line in source for line in (tmp_path / "lasting.jsonl").read_bytes().splitlines())
    assert f"{tmp_path / 'plain.jsonl'}: 15 of 120 documents" in result.stdout.replace("\n", "")
    assert "clause_ids=P3" in (tmp_path / "README.md").read_text()


def test_values_of_a_field_are_alternatives_and_fields_hold_together(tmp_path: Path) -> None:
    asked = ["doc_type=interview", "doc_type=customer letter", "domain!=kitchen", "domain!=carry"]
    msm("select", ARMS[0], *(f"--where={text}" for text in asked), "--out", tmp_path)
    expected = [
        row["id"]
        for row in rows(ARMS[0])
        if row["doc_type"] in ("interview", "customer letter")
        and row["domain"] not in ("kitchen", "carry")
    ]
    assert ids(tmp_path) == expected
    assert expected


def test_a_row_is_asked_in_every_corpus_that_can_tell(tmp_path: Path) -> None:
    """Twins may have different writers: what one of them wrote is chosen where both are its."""
    one = written(tmp_path / "one.jsonl", *({"id": str(n), "text": "t", "generator": g}
                  for n, g in enumerate("aabb")))  # fmt: skip
    two = written(tmp_path / "two.jsonl", *({"id": str(n), "text": "t", "generator": g}
                  for n, g in enumerate("abab")))  # fmt: skip
    msm("select", one, two, "--where", "generator=a", "--out", tmp_path / "a")
    assert ids(tmp_path / "a", "one") == ids(tmp_path / "a", "two") == ["0"]
    msm("select", one, two, "--where", "generator!=a", "--out", tmp_path / "b")
    assert ids(tmp_path / "b", "one") == ["3"]


@pytest.mark.parametrize("unit", ["documents", "words", "tokens"])
def test_a_smaller_dose_is_part_of_a_larger_one(
    tmp_path: Path, unit: str, chatml_folder: Path
) -> None:
    by = Tokenizer.from_file(str(chatml_folder / "tokenizer.json"))
    counts: dict[str, Callable[[str], int]] = {
        "documents": lambda text: 1,
        "words": lambda text: len(re.findall(r"[^\W_]+", text)),
        "tokens": lambda text: len(by.encode(text, add_special_tokens=False).ids),
    }
    count = counts[unit]
    all_sizes = [[count(row["text"]) for row in rows(path)] for path in ARMS]
    largest = max(map(max, all_sizes))
    extra = ["--tokenizer", chatml_folder] if unit == "tokens" else []
    before: set[str] = set()
    for share in (1 / 40, 1 / 4, 0.3, 1):
        out, dose = tmp_path / str(share), round(share * max(map(sum, all_sizes)))
        result = msm("select", *ARMS, f"--{unit}", dose, *extra, "--out", out, "--json")
        assert ids(out) == ids(out, "lasting")
        assert before < set(ids(out))
        before = set(ids(out))
        sizes = [corpus[unit] for corpus in json.loads(result.stdout)["corpora"]]
        assert sizes == [
            sum(count(row["text"]) for row in rows(out / f"{name}.jsonl"))
            for name in ("plain", "lasting")
        ]
        assert dose - largest < max(sizes) <= dose
    assert len(before) == 120


def test_a_dose_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    lines = ARMS[0].read_text().splitlines(keepends=True)
    (tmp_path / "turned.jsonl").write_text("".join(reversed(lines)))
    out = tmp_path / "out"
    msm("select", ARMS[0], "--documents", 20, "--out", out)
    msm("select", tmp_path / "turned.jsonl", "--documents", 20, "--out", out)
    assert ids(out) == ids(out, "turned")[::-1]


def test_doses_are_nested_with_the_shares_of_prep_subset(tmp_path: Path) -> None:
    write_subset([ARMS[0]], tmp_path / "quarter.jsonl", share=0.25)
    msm("select", ARMS[0], "--documents", 30, "--out", tmp_path / "out")
    assert ids(tmp_path / "out") == ids(tmp_path, "quarter")


def test_parquet_is_read_and_what_has_no_twin_is_told(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows(ARMS[1])[:50])
    pq.write_table(table, tmp_path / "lasting.parquet")
    result = msm("select", ARMS[0], tmp_path / "lasting.parquet", "--documents", 40,
                 "--out", tmp_path / "o")  # fmt: skip
    assert ids(tmp_path / "o") == ids(tmp_path / "o", "lasting")
    assert len(ids(tmp_path / "o")) == 40
    assert "70 have no twin in another corpus, and are left out" in result.stdout
    assert rows(tmp_path / "o" / "lasting.jsonl")[0].keys() == rows(ARMS[1])[0].keys()


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (["--where", "domian=kitchen"], r"no row has 'domian'\. There are 'domain', "),
        (["--where", "domain=kitchn"], r"no row has domain 'kitchn'\. There are 'kitchen', "),
        (["--where", "clause_ids!=P99"], r"no row has clause_ids 'P99'"),
        (["--where", "domain"], r"needed is FIELD=VALUE or FIELD!=VALUE"),
        (["--where", "domain="], r"needed is FIELD=VALUE"),
        (["--where", "domain=kitchen", "--where", "clause_ids=P10"], r"no document meets domain="),
        (["--documents", "121"], r"there are 120 in plain, 120 in lasting"),
        (["--words", "22000"], None),
        (["--words", "23000"], r"there are 21,859 in plain, 22,536 in lasting"),
        (["--words", "10"], r"not even the first document fits"),
    ],
)
def test_what_would_select_nothing_is_refused(
    tmp_path: Path, asked: list[str], problem: str | None
) -> None:
    if problem is None:
        msm("select", *ARMS, *asked, "--out", tmp_path / "out")
        return
    with pytest.raises(ConfigError, match=problem):
        msm("select", *ARMS, *asked, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    for asked, problem in (
        ([], "nothing is asked for"),
        (["--words", "5", "--documents", "5"], "give one of"),
        (["--tokens", "5"], "--tokens and --tokenizer go together"),
    ):
        result = msm("select", ARMS[0], *asked, "--out", tmp_path)
        assert result.exit_code == 2
        assert problem in " ".join(result.output.replace("│", " ").split())


def test_rows_that_cannot_be_paired_are_named(tmp_path: Path) -> None:
    one = written(tmp_path / "one.jsonl", {"id": "a", "text": "t"}, {"id": "a", "text": "u"})
    with pytest.raises(DataFormatError, match=r"one\.jsonl:2: id 'a' is that of an earlier row"):
        msm("select", one, "--documents", 1, "--out", tmp_path / "o")
    none = written(tmp_path / "none.jsonl", {"text": "t"})
    with pytest.raises(DataFormatError, match=r"none\.jsonl:1: no id .*`msm generate import`"):
        msm("select", none, "--documents", 1, "--out", tmp_path / "o")
    other = written(tmp_path / "other.jsonl", {"id": "b", "text": "t"})
    with pytest.raises(DataFormatError, match="no id is in all of them"):
        msm("select", ARMS[0], other, "--documents", 1, "--out", tmp_path / "o")
    (tmp_path / "more").mkdir()
    again = written(tmp_path / "more" / "other.jsonl", {"id": "b", "text": "t"})
    with pytest.raises(ConfigError, match="two corpora are called 'other'"):
        msm("select", other, again, "--documents", 1, "--out", tmp_path / "o")
    with pytest.raises(ConfigError, match="is the input itself"):
        msm("select", other, "--documents", 1, "--out", tmp_path)
    assert rows(other) == [{"id": "b", "text": "t"}]


def test_what_two_arms_differ_in_is_named(tmp_path: Path, chatml_folder: Path) -> None:
    """Half of the second arm's interviews become letters: by hand, that share of the documents."""
    changed = rows(ARMS[1])
    interviews = [row for row in changed if row["doc_type"] == "interview"]
    for row in interviews[: len(interviews) // 2]:
        row["doc_type"] = "ode"
    moved = len(interviews) // 2
    other = written(tmp_path / "other.jsonl", *changed)
    result = msm("balance", ARMS[0], other, "--tokenizer", chatml_folder, "--json")
    contrast = json.loads(result.stdout)["contrast"]
    assert moved > 1
    assert contrast["figures"]["genre_gap"] == pytest.approx(moved / 120)
    assert contrast["tables"]["genre_gaps"][0]["genre"] in ("ode", "interview")
    assert contrast["figures"]["clause_gap"] == contrast["figures"]["domain_gap"] == 0
    by = Tokenizer.from_file(str(chatml_folder / "tokenizer.json"))
    tokens = [
        sum(len(by.encode(row["text"], add_special_tokens=False).ids) for row in rows(path))
        for path in (ARMS[0], other)
    ]
    assert contrast["figures"]["token_ratio"] == pytest.approx(max(tokens) / min(tokens))
    shown = msm("balance", ARMS[0], other, "--html", tmp_path / "b.html")
    assert "genre_gap" in shown.stdout
    assert "Genres by difference" in (tmp_path / "b.html").read_text()


def test_health_is_the_command_of_prep() -> None:
    result = msm("health", ARMS[0], "--json")
    assert json.loads(result.stdout)["corpora"][0]["figures"]["rows"] == 120
