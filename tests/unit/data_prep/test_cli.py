import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from data_prep.cli import app
from megatron_msm.errors import DataFormatError
from tests.unit.data_prep.prep_cases import conversations, texts, write_lines

HEAVY = ("torch", "transformers", "megatron", "gigatoken")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def made(tmp_path: Path, chatml_folder: Path) -> Path:
    """A folder with a finished dataset `docs` and another one `chats`."""
    docs = write_lines(tmp_path / "d.jsonl", [*texts(4), b""])
    chats = write_lines(tmp_path / "c.jsonl", conversations(4))
    common = ("--tokenizer", chatml_folder, "--out")
    assert run("docs", docs, *common, tmp_path / "docs").exit_code == 0
    result = run("chats", chats, *common, tmp_path / "chats", "--max-length", 99)
    assert result.exit_code == 0, result.output
    return tmp_path


def test_commands_report_in_words(made: Path, chatml_folder: Path) -> None:
    again = run("docs", made / "d.jsonl", "--tokenizer", chatml_folder, "--out", made / "docs.bin")
    assert f"{made / 'docs'}: already made, 4 rows" in again.output
    assert "1 blank lines skipped" in again.output
    assert "ok     loss mask" in run("check", made / "chats").output
    assert "row 3 of 4" in run("show", made / "docs", "--row", -1).output


def test_json_is_one_object_on_stdout(made: Path, chatml_folder: Path) -> None:
    common = ("--tokenizer", chatml_folder, "--json", "--out")
    docs = run("docs", made / "d.jsonl", *common, made / "docs")
    chats = run("chats", made / "c.jsonl", *common, made / "chats", "--max-length", 99)
    merged = run("merge", made / "docs", "--out", made / "m", "--json")
    check = run("check", made / "docs", "--json")
    values = [orjson.loads(result.stdout) for result in (docs, chats, merged, check)]
    assert [value["already_made"] for value in values[:3]] == [True, True, False]
    assert values[0]["kept"] == values[2]["kept"] == 4
    assert values[0]["sha256"] == values[2]["sha256"] == values[3]["sha256"]
    assert values[3]["is_ok"] is True
    assert values[1]["trained_tokens"] < values[1]["tokens"]


def test_a_failed_check_still_prints_its_json(made: Path) -> None:
    path = made / "docs.bin"
    path.write_bytes(b"\x05" + path.read_bytes()[1:])
    result = run("check", made / "docs", "--json")
    assert orjson.loads(result.stdout)["is_ok"] is False
    assert isinstance(result.exception, DataFormatError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["docs", "d.jsonl", "--out", "x"], "Missing option '--tokenizer'"),
        (["docs", "--tokenizer", "t", "--out", "x"], "Missing argument 'INPUT'"),
        (["chats", "c.jsonl", "--tokenizer", "t", "--out", "x"], "Missing option '--max-length'"),
        (
            ["docs", "d", "--tokenizer", "t", "--out", "x", "--no-append-eod", "--eod-token", "y"],
            "needs --append-eod",
        ),
        (
            ["chats", "c", "--tokenizer", "t", "--out", "x", "--max-length", "9", "--today", "4/5"],
            "'4/5' is not YYYY-MM-DD",
        ),
        (["docs", "d", "--tokenizer", "t", "--out", "x", "--max-rejects", "-1"], "--max-rejects"),
    ],
)
def test_wrong_options_exit_with_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", "").split())


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_and_all_modules_import_nothing_heavy() -> None:
    code = f"""
import importlib, pkgutil, sys
from typer.testing import CliRunner
import data_prep, data_prep.cli
assert CliRunner().invoke(data_prep.cli.app, ["--help"]).exit_code == 0
light = [name for name in ("numpy", "pyarrow", "tokenizers", "jinja2") if name in sys.modules]
assert not light, light
names = [m.name for m in pkgutil.walk_packages(data_prep.__path__, "data_prep.")]
for name in names: importlib.import_module(name)
import megatron_msm.formats
formats = [m.name for m in pkgutil.iter_modules(megatron_msm.formats.__path__)]
for name in formats: importlib.import_module("megatron_msm.formats." + name)
heavy = sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r}))
assert not heavy, heavy
print(len(names), len(formats))
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    num_modules, num_formats = map(int, result.stdout.split())
    assert num_modules >= 17
    assert num_formats >= 7


@pytest.mark.parametrize("command", ["dedup", "contamination"])
def test_long_looks_at_a_corpus_tell_how_far_they_are(
    command: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron_msm.progress.LINE_EVERY_S", 0.0)
    more = ("--against", made / "d.jsonl") if command == "contamination" else ()
    of_lines = run(command, made / "d.jsonl", *more).stderr.splitlines()
    assert f"{command}: 0 of 0 MB" in of_lines[-1]
    assert "rows/s" in of_lines[-1]
    of_rows = run(command, made / "docs", *more).stderr.splitlines()
    assert f"{command}: 4 of 4 rows" in of_rows[-1]
    assert of_rows[-1].endswith("s left")
