"""Which checkpoint a path means."""

import os
from pathlib import Path

import pytest

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import LATEST_FILE, resolve_checkpoint


def test_the_folder_of_a_run_is_refused_with_its_phases_in_their_order(tmp_path: Path) -> None:
    for place, name in enumerate(("midtrain", "aft", "_base")):
        latest = tmp_path / name / LATEST_FILE
        latest.parent.mkdir()
        latest.write_text("3")
        os.utime(latest, (place, place))
    with pytest.raises(CheckpointError) as refused:
        resolve_checkpoint(tmp_path)
    phases = f"{tmp_path / 'midtrain'}, {tmp_path / 'aft'}."
    assert str(refused.value).endswith(f"Give one of its phases: {phases}")
