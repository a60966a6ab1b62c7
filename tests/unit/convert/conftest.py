from pathlib import Path

import pytest

from megatron_msm.convert.importing import import_hf
from tests.unit.convert.hf_folders import write_hf_folder


@pytest.fixture
def hf_folder(tmp_path: Path) -> Path:
    """A complete small Hugging Face folder."""
    folder = tmp_path / "hf"
    write_hf_folder(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, hf_folder: Path) -> Path:
    """The same, imported."""
    out = tmp_path / "megatron"
    import_hf(hf_folder, out)
    return out
