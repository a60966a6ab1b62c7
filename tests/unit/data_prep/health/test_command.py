"""`msm prep health` as it is typed: what it prints, writes, refuses, and how it exits."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from data_prep.cli import app
from megatron_msm.errors import DataFormatError, MsmError

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "plain_or_lasting"


def health(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["health", *map(str, arguments)])


def report(*arguments: object) -> dict[str, Any]:
    result = health(*arguments, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


def arm(name: str, flag: str = "") -> list[object]:
    docs, values = EXAMPLE / f"{name}.docs.jsonl", EXAMPLE / "values" / f"{name}.yaml"
    return [*([flag] if flag else []), docs, flag.replace("other", "other-values") or "--values",
            values]  # fmt: skip


def write(path: Path, texts: list[str], **fields: object) -> Path:
    rows = [json.dumps({"text": text, **fields}) for text in texts]
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def test_both_arms_of_the_example_are_measured_beside_each_other() -> None:
    items = EXAMPLE / "choice.jsonl"
    content = report(*arm("plain"), *arm("lasting", "--other"), "--items", items)
    plain, lasting = (corpus["figures"] for corpus in content["corpora"])
    assert [corpus["name"] for corpus in content["corpora"]] == ["plain", "lasting"]
    words = [
        sum(len(re.findall(r"[^\W_]+", json.loads(line)["text"])) for line in path.open())
        for path in (EXAMPLE / "plain.docs.jsonl", EXAMPLE / "lasting.docs.jsonl")
    ]
    assert [plain["words"], lasting["words"]] == words
    assert (plain["rows"], plain["genres"], plain["domains"]) == (248, 58, 8)
    assert (plain["assertion"], plain["attribution"]) == (1.0, pytest.approx(209 / 248))
    assert lasting["attribution"] == pytest.approx(214 / 248)
    assert plain["clause_coverage"] == 1.0
    assert (plain["contaminated"], plain["near_duplicates"], plain["items_repeated"]) == (0, 0, 0)
    contrast = content["contrast"]["figures"]
    assert contrast["word_ratio"] == pytest.approx(words[1] / words[0])
    assert (contrast["genre_gap"], contrast["domain_gap"], contrast["paired"]) == (0, 0, 1)
    assert contrast["auc"] > 0.9, "what the documents say for the reason tells the arms apart"
    assert contrast["perplexity_ratio"] is None
    assert content["corpora"][0]["notes"]["initial_loss"] == "needs --model"


def test_the_screen_has_the_published_figures_and_the_page_needs_no_network(
    tmp_path: Path,
) -> None:
    docs = write(tmp_path / "odd.jsonl", ["<script>alert(1)</script> one two three four five."] * 9)
    result = health(docs, "--html", tmp_path / "page.html")
    assert result.exit_code == 0
    assert ".385 to .404" in " ".join(result.output.split())
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert not re.search(r"https?://|src=|@import|url\(", page)
    for name in ("assertion", "self_bleu", "near_duplicates", "top_name"):
        assert f"<code>{name}</code>" in page


def test_a_gate_that_is_not_met_is_named_and_exits_with_1() -> None:
    met = health(*arm("plain"), "--require", "attribution>=65%", "--require", "assertion>0.99")
    assert met.exit_code == 0
    failed = health(*arm("plain"), "--require", "attribution>=0.85", "--require", "assertion>0.99")
    assert failed.exit_code == 1
    assert "not met: attribution>=0.85 (plain: 84.3%)" in failed.stderr
    assert "assertion" not in failed.stderr
    both = health(*arm("plain"), *arm("lasting", "--other"), "--require", "attribution>=0.85",
                  "--json")  # fmt: skip
    assert [gate["is_met"] for gate in json.loads(both.stdout)["gates"]] == [False, True]
    assert both.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--require", "attribution>=0.65"], "was not measured of docs: needs --values"),
        (["--require", "atribution>=0.65"], "no such figure here. There are rows, words"),
        (["--require", "attribution=0.65"], "needed is NAME>=VALUE"),
        (["--require", "auc<=0.85"], "no such figure here"),
        (["--values", "none.yaml"], "none.yaml: no such file"),
        (["--model", "none"], "none: no Hugging Face model"),
        (["--items", "none.jsonl"], "none.jsonl: no such file"),
        (["--text-field", "body"], "docs.jsonl:1: no field 'body'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = health(write(tmp_path / "docs.jsonl", ["one two three"] * 3), *arguments)
    assert isinstance(result.exception, MsmError)
    assert message in str(result.exception)
    assert result.exception.exit_status == 2


def test_a_broken_line_or_an_empty_file_is_named(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs.jsonl", ["one two three"])
    docs.write_text(docs.read_text() + '{"text": "cut\n')
    assert isinstance(health(docs).exception, DataFormatError)
    assert "docs.jsonl:2: invalid JSON" in str(health(docs).exception)
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "no documents" in str(health(tmp_path / "empty.jsonl").exception)
    assert "no such file" in str(health(tmp_path / "none.jsonl").exception)


def test_what_was_measured_is_shown_though_a_gate_cannot_be_held(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs.jsonl", ["one two three"] * 3)
    page = tmp_path / "deeper" / "page.html"
    result = health(docs, "--require", "atribution>=0.65", "--html", page)
    assert isinstance(result.exception, MsmError)
    assert "self-BLEU" in result.stdout
    assert "self-BLEU" in page.read_text()


def test_standard_input_is_read(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs.jsonl", ["one two three"] * 3)
    with docs.open() as given:
        done = subprocess.run(
            [sys.executable, "-m", "megatron_msm.cli", "prep", "health", "-", "--json"],
            stdin=given, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert json.loads(done.stdout)["corpora"][0]["figures"]["rows"] == 3


def test_tables_and_several_files_are_read_as_lines_are(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (EXAMPLE / "plain.docs.jsonl").open()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "docs.parquet")
    half = len(rows) // 2
    for name, part in (("a", rows[:half]), ("b", rows[half:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    values = EXAMPLE / "values" / "plain.yaml"
    whole = report(EXAMPLE / "plain.docs.jsonl", "--values", values)["corpora"][0]["figures"]
    for given in ([tmp_path / "docs.parquet"], [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]):
        assert report(*given, "--values", values)["corpora"][0]["figures"] == whole


@pytest.mark.parametrize("texts", [["one"], ["!!!"], ["a b c", "!!!"], ["x"] * 2], ids=str)
def test_a_corpus_of_next_to_nothing_is_measured(tmp_path: Path, texts: list[str]) -> None:
    docs = write(tmp_path / "docs.jsonl", texts)
    twin = write(tmp_path / "twin.jsonl", texts)
    content = report(docs, "--other", twin, "--html", tmp_path / "page.html")
    assert content["corpora"][0]["figures"]["rows"] == len(texts)


def test_the_sample_is_said_where_it_is_not_everything(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs.jsonl", [f"document number {n} of many" for n in range(30)])
    notes = report(docs, "--sample", 10)["corpora"][0]["notes"]
    assert notes["frame_share"] == "on 10 of 30 documents"


def test_other_values_without_another_arm_is_refused(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs.jsonl", ["one"])
    assert health(docs, "--other-values", "x.yaml").exit_code == 2


def test_neither_the_command_nor_its_room_imports_torch() -> None:
    program = (
        "import sys, data_prep.cli, data_prep.health.examine, data_prep.health.page; "
        "print(sorted({'torch', 'transformers', 'evals'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
