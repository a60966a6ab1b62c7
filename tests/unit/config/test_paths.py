"""Where relative paths start, and what is said when the other reading leads somewhere."""

from pathlib import Path

import pytest

from megatron_msm.config.paths import check_run_paths, input_path
from megatron_msm.config.run import RunConfig
from megatron_msm.errors import ConfigError
from megatron_msm.formats.manifest import manifest_path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    return tmp_path


def test_inputs_start_at_the_folder_of_their_file(here: Path) -> None:
    for folder in (here, here / "study"):
        (folder / "items.jsonl").touch()
    assert input_path(Path("study/suite.yaml"), Path("items.jsonl")) == Path("study/items.jsonl")
    assert input_path(Path("study/suite.yaml"), here / "items.jsonl") == here / "items.jsonl"


def test_an_input_that_lies_where_the_command_runs_is_named_as_the_file_has_to(here: Path) -> None:
    (here / "data").mkdir()
    (here / "data" / "items.jsonl").touch()
    with pytest.raises(ConfigError, match=r"Write \.\./data/items\.jsonl\."):
        input_path(Path("study/suite.yaml"), Path("data/items.jsonl"))
    # Nothing under either reading: whoever reads the file says so.
    assert input_path(Path("study/suite.yaml"), Path("no.jsonl")) == Path("study/no.jsonl")


def run_config() -> RunConfig:
    return RunConfig.model_validate(
        {
            "out": "train",
            "model": {"checkpoint": "base"},
            "phases": [
                {
                    "name": "midtrain",
                    "data": {"prefixes": ["docs"]},
                    "seq_length": 8,
                    "global_batch_size": 1,
                    "duration": {"steps": 1},
                    "optimizer": {"lr": 1e-5},
                }
            ],
        }
    )


def test_paths_of_a_run_file_start_where_the_command_runs(here: Path) -> None:
    file = Path("study/run.yaml")
    check_run_paths(file, run_config())
    (here / "study" / "base").mkdir()
    with pytest.raises(ConfigError, match=r"model: base is not .* write study/base\."):
        check_run_paths(file, run_config())
    (here / "base").mkdir()
    manifest_path(here / "study" / "docs").touch()
    with pytest.raises(ConfigError, match=r"phases\.midtrain\.data: docs .* study/docs\."):
        check_run_paths(file, run_config())
    manifest_path(here / "docs").touch()
    check_run_paths(file, run_config())
