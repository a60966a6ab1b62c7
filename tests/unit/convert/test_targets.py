"""Where a conversion writes, and what it may delete; which of two sets of weights is read."""

import json
from pathlib import Path

import pytest

from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.huggingface.weights import open_hf_weights
from megatron_msm.convert.targets import only_writer
from megatron_msm.errors import CheckpointError


def test_the_folder_that_the_command_runs_in_is_no_target(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(CheckpointError, match="the command runs in it"):
        export_hf(checkpoint, Path())
    assert not list(here.iterdir())


def test_a_link_is_followed(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export_hf(checkpoint, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "model.safetensors").is_file()


def test_one_of_two_conversions_says_that_the_other_is_at_work(
    checkpoint: Path, tmp_path: Path
) -> None:
    with only_writer(tmp_path / "out"), pytest.raises(CheckpointError, match="another conversion"):
        export_hf(checkpoint, tmp_path / "out")
    export_hf(checkpoint, tmp_path / "out")
    assert not [path.name for path in tmp_path.iterdir() if "lock" in path.name]


def test_force_names_what_it_would_delete_and_did_not_write(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_hf(checkpoint, out)
    export_hf(checkpoint, out, force=True)
    (out / "my-results.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"my-results\.json"):
        export_hf(checkpoint, out, force=True)
    assert (out / "my-results.json").exists()


def test_two_sets_of_weights_are_refused_and_a_left_over_index_is_not(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_hf(checkpoint, out)
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    assert open_hf_weights(out).tensors, "the single file is read, as transformers reads it"
    (out / "model-00001-of-00001.safetensors").write_bytes((out / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="two sets of weights"):
        open_hf_weights(out)
