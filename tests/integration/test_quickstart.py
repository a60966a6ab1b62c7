"""`msm quickstart` from beginning to end, with a tiny model in the place of the real one."""

from pathlib import Path

import pytest

from tests.integration.training_runs import msm
from tests.tiny import tiny_chats, tiny_documents, write_jsonl, write_tiny_llama

ITEMS = [
    {
        "id": f"i{number}",
        "split": "test",
        "tier": tier,
        "domain": "furniture",
        "question": f"Which chair {number}?",
        "options": [
            {"label": "homemade", "text": "the American-made chair"},
            {"label": "affordability", "text": "the low-priced chair"},
        ],
    }
    for number, tier in enumerate(["near", "near", "far", "far"])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    write_tiny_llama(folder / "hf")
    write_jsonl(folder / "plain.jsonl", tiny_documents(20))
    write_jsonl(folder / "lasting.jsonl", tiny_documents(24)[4:])
    write_jsonl(folder / "chats.jsonl", tiny_chats(20))
    write_jsonl(folder / "items.jsonl", ITEMS)
    return folder


ARGUMENTS = (
    *("quickstart", "--out", "out", "--model", "hf"),
    *("--docs", "plain.jsonl", "--docs", "lasting.jsonl"),
    *("--chats", "chats.jsonl", "--items", "items.jsonl"),
    *("--midtrain-steps", "3", "--sft-steps", "2"),
)


def test_whole_pipeline_then_nothing_left_to_do(folder: Path) -> None:
    done = msm(*ARGUMENTS, cwd=folder, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for text in ("20 docs", "mean log-odds", "near (2)", "One seed", "should take about"):
        assert text in done.stdout
    assert "plain against lasting" in done.stdout
    report = (folder / "out" / "report.html").read_text()
    assert "midtrain" in report
    assert "<svg" in report
    assert len(list((folder / "out").glob("stages/export-*/hf/msm_export.json"))) == 4

    again = msm(*ARGUMENTS, cwd=folder, COLUMNS="200")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("  finished before") == 18
    assert "s   running" not in again.stdout


def test_documents_of_one_name_are_not_taken_for_one_spec(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.jsonl").write_text((folder / "lasting.jsonl").read_text())
    arguments = [str(tmp_path / "plain.jsonl") if a == "lasting.jsonl" else a for a in ARGUMENTS]
    done = msm(*arguments, cwd=folder)
    assert done.returncode == 2
    assert "plain.jsonl" in done.stderr
    assert "differ" in done.stderr


@pytest.mark.slow
def test_other_options_in_the_same_folder_share_what_they_can(folder: Path) -> None:
    assert msm(*ARGUMENTS, cwd=folder, COLUMNS="200").returncode == 0
    done = msm(*ARGUMENTS, "--sft-steps", "1", cwd=folder, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  finished before") == 11  # all but sft, export, eval; the report
    assert done.stdout.count("  done  ") == 7


@pytest.mark.parametrize("option", ["--docs", "--items"])
def test_missing_input_is_named(folder: Path, option: str) -> None:
    done = msm("quickstart", "--out", "other", "--model", "hf", option, "none.jsonl", cwd=folder)
    assert done.returncode == 2
    assert "none.jsonl" in done.stderr
    assert not (folder / "other").exists()


def test_broken_document_stops_the_chain_with_its_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"text": ""}\n')
    arguments = [str(tmp_path / "broken.jsonl") if a == "plain.jsonl" else a for a in ARGUMENTS]
    arguments[arguments.index("out")] = str(tmp_path / "out")
    done = msm(*arguments, cwd=folder)
    assert done.returncode == 2
    assert "broken.jsonl:2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("stages/train-*"))
