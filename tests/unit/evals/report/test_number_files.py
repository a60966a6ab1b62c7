"""The tables and pictures beside a report, read with readers that wrote none of them."""

import csv
import math
import re
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from megatron_msm.formats.files import write_json_atomic
from tests.unit.evals.conftest import Run
from tests.unit.evals.tasks.choice.results import result

RESULTS = [
    result("base", {'near, "first"': [0.0, 0.1, -0.1], "far": [0.0, 0.3]}),
    result("msm#1", {'near, "first"': [1.0, 1.2, 0.8], "far": [0.1, 0.1]}),
    result("msm#2", {'near, "first"': [1.1, 1.2, 0.7], "far": [0.1, 0.4]}),
]


@pytest.fixture
def data(msm_eval: Run, tmp_path: Path) -> Path:
    arguments: list[str | Path] = ["report", tmp_path / "r.html"]
    for number, one in enumerate(RESULTS):
        path = tmp_path / f"{number}.json"
        write_json_atomic(path, one.model_dump(mode="json"))
        arguments += ["--result", path]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"phase": "midtrain", "step": 3, "loss/lm_nats": 2.5, "time/step_s": 1}\n')
    old = tmp_path / "r.data" / "gone-level-0.svg"
    old.parent.mkdir()
    old.write_text("of an earlier report")
    ended = msm_eval(*arguments, "--metrics", f"midtrain={metrics}", "--contrast", "c=+msm,-base")
    assert ended.status == 0
    assert not old.exists()
    return old.parent


def test_rows_are_all_numbers_of_all_items(data: Path) -> None:
    expected = {
        (one.model.label, row.id, name): number
        for one in RESULTS
        for row in one.rows
        for name, number in row.numbers.items()
    }
    read = list(csv.DictReader((data / "rows.csv").open(encoding="utf-8")))
    found = {(row["label"], row["item"], row["metric"]): float(row["number"]) for row in read}
    assert found == expected
    assert len(read) == len(expected) == 3 * 5 * 4
    parquet = pq.read_table(data / "rows.parquet").to_pylist()
    assert {(r["label"], r["item"], r["metric"]): r["number"] for r in parquet} == expected
    assert {(r["arm"], r["label"]) for r in parquet} == {
        ("base", "base"), ("msm", "msm#1"), ("msm", "msm#2"),
    }  # fmt: skip
    assert {row["group"] for row in read} == {'near, "first"', "far"}


def test_numbers_are_levels_changes_and_contrasts(data: Path) -> None:
    table = pq.read_table(data / "numbers.parquet").to_pylist()
    kinds = [row["kind"] for row in table]
    # 2 arms x 3 groups x 4 metrics; 1 arm x 3 groups; 1 contrast x 3 groups; each with d' and c.
    assert (kinds.count("level"), kinds.count("change"), kinds.count("contrast")) == (28, 5, 5)
    apart = [row for row in table if row["metric"] in ("sensitivity", "criterion")]
    assert [(r["kind"], r["arm"], r["num_seeds"], r["n"]) for r in apart[::2]] == [
        ("level", "base", 1, 5), ("level", "msm", 2, 5), ("change", "msm", 3, 5),
        ("contrast", "c: + msm - base", 3, 5),
    ]  # fmt: skip
    level = next(r for r in table if (r["arm"], r["group"], r["metric"], r["kind"]) ==
                 ("msm", "far", "log_odds", "level"))  # fmt: skip
    assert level["estimate"] == pytest.approx((0.1 + 0.1 + 0.1 + 0.4) / 4)
    assert (level["num_seeds"], level["n"]) == (2, 2)
    of_headline = [row for row in table if row["metric"] == "log_odds"]
    change = next(r for r in of_headline if r["kind"] == "change" and r["group"] is None)
    asked = next(r for r in of_headline if r["kind"] == "contrast" and r["group"] is None)
    # The change and the contrast over all items are one family of two, those by group one of four.
    assert (asked["correction"], asked["num_comparisons"]) == ("Holm", 2)
    assert asked["p_adjusted"] == pytest.approx(min(1, 2 * asked["p_value"]))
    far = next(r for r in table if r["kind"] == "contrast" and r["group"] == "far")
    assert (far["correction"], far["num_comparisons"]) == ("Benjamini-Hochberg", 4)
    assert [change[k] for k in ("estimate", "low", "high")] == pytest.approx(
        [asked[k] for k in ("estimate", "low", "high")]
    )
    lines = list(csv.DictReader((data / "numbers.csv").open(encoding="utf-8")))
    for line, row in zip(lines, table, strict=True):
        assert float(line["estimate"]) == pytest.approx(row["estimate"])
    assert {row["protocol_sha256"] for row in table} == {RESULTS[0].protocol_sha256}
    (loss,) = pq.read_table(data / "losses.parquet").to_pylist()
    assert loss == {"run": "", "phase": "midtrain", "step": 3, "loss_nats": 2.5}


def test_pictures_are_whole_svg_and_pdf_files_with_colours(data: Path) -> None:
    names = {
        "choice-groups", "loss-0",
        *(f"choice-{kind}-{n}" for n in range(3) for kind in ("level", "change", "contrasts")),
    }  # fmt: skip
    assert {path.stem for path in data.glob("*.svg")} == names
    assert {path.stem for path in data.glob("*.pdf")} == names
    for path in data.glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in path.read_text(encoding="utf-8")
    heat = (data / "choice-groups.svg").read_text(encoding="utf-8")
    shown = [float(one) for one in re.findall(r">([+\N{MINUS SIGN}-]\d\.\d\d)<", heat)]
    expected = [0.0, 1.0, 0.15, 0.175]
    assert len(shown) == 4
    assert all(math.isclose(a, b, abs_tol=0.006) for a, b in zip(shown, expected, strict=True))


def test_a_pdf_has_the_light_pages_colours_and_no_stand_in(data: Path) -> None:
    for path in data.glob("*.pdf"):
        content = path.read_bytes()
        assert content.startswith(b"%PDF")
        streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
        drawn = b"".join(_inflated(stream) for stream in streams)
        used = {
            tuple(round(255 * float(part)) for part in match)
            for match in re.findall(rb"([\d.]+) ([\d.]+) ([\d.]+) (?:rg|RG)\b", drawn)
        }
        assert (0x5F, 0x66, 0x72) in used or (0x1D, 0x21, 0x29) in used  # muted, or ink
        assert not [color for color in used if color != (0, 0, 0) and max(color) < 16]


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""
