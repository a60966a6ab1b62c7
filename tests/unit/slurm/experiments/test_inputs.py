"""What an experiment reads from outside."""

import gc
from pathlib import Path

import pytest

from slurm.experiments.inputs import Inputs


def test_a_dry_runs_model_outlives_the_lookup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr("slurm.experiments.base_model.write_base_model", unpack)
    folder = Inputs(tmp_path / "grid.yaml", tmp_path / "out", writes=False).packaged_model()
    gc.collect()
    assert (folder / "config.json").is_file(), "the plan reads it later"
    assert not (tmp_path / "out").exists()
