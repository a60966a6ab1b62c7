"""Several processes write what one writes, and an export notices what it wrote wrong."""

from pathlib import Path

import orjson
import pytest
import torch

from megatron_msm.convert import exporting, importing
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.huggingface.safetensors_writer import SafetensorsFile
from megatron_msm.convert.importing import import_hf
from megatron_msm.convert.megatron import writer as megatron_writer
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import EXPORT_FILE, LineageEntry
from tests.unit.convert.hf_folders import SMALL_FILES
from tests.unit.convert.training_checkpoints import read_all, write_trained


def test_processes_share_the_work_and_the_result_is_the_same(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(megatron_writer, "MAX_FILE_BYTES", 4_000)
    one = import_hf(hf_folder, tmp_path / "one")
    two = import_hf(hf_folder, tmp_path / "two", workers=2)
    assert len([name for name in one.files if name.endswith(".distcp")]) > 2
    assert one.identity == two.identity
    manifests = [
        export_hf(
            tmp_path / "two", tmp_path / f"back{workers}", max_shard_size="9KB", workers=workers
        )
        for workers in (1, 2)
    ]
    assert manifests[0].files == manifests[1].files
    assert len([name for name in manifests[0].files if name.endswith(".safetensors")]) > 2


def test_an_error_in_another_process_is_the_users_message(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truncate_first(*args: object) -> None:
        path = hf_folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-500])

    monkeypatch.setattr(megatron_writer, "MAX_FILE_BYTES", 4_000)
    monkeypatch.setattr(importing, "check_disk_space", truncate_first)
    with pytest.raises(CheckpointError, match=r"model.safetensors: ends inside tensor"):
        import_hf(hf_folder, tmp_path / "megatron", workers=2)
    assert list((tmp_path / "megatron").iterdir()) == []


def test_a_bit_that_the_disk_lost_is_found(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LosingFile(SafetensorsFile):
        def write(self, name: str, tensor: torch.Tensor) -> None:
            if name == "model.norm.weight":
                tensor = tensor.clone()
                tensor.view(torch.int16)[5] ^= 1
            super().write(name, tensor)

    monkeypatch.setattr(exporting, "SafetensorsFile", LosingFile)
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight', read back, is not what"):
        export_hf(checkpoint, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    export_hf(checkpoint, tmp_path / "back", check=False)


def test_a_trained_model_has_a_card_of_its_own(hf_folder: Path, tmp_path: Path) -> None:
    (hf_folder / "README.md").write_text("---\nlicense: apache-2.0\neval: 99\n---\nBest model.\n")
    import_hf(hf_folder, tmp_path / "megatron")
    entry = LineageEntry(
        stage="midtrain",
        identity="e" * 64,
        details={"data": {"cheese": "d" * 64}, "steps": 7, "lr": 1e-5},
    )
    write_trained(
        tmp_path / "megatron",
        tmp_path / "trained",
        read_all(tmp_path / "megatron"),
        lineage=entry,
        run_yaml="seed: 3\n",
    )
    manifest = export_hf(tmp_path / "trained", tmp_path / "back")
    card = (tmp_path / "back" / "README.md").read_text()
    for expected in (
        "license: apache-2.0\n",
        "base_model: hf\n",
        "import -> midtrain, step 7",
        "e" * 64,
        "d" * 64,
        "steps: `7`",
        "seed: 3\n",
        manifest.checkpoint_identity,
    ):
        assert expected in card, expected
    assert "Best model" not in card
    assert "Best model" in (tmp_path / "back" / "BASE_MODEL_README.md").read_text()
    assert (tmp_path / "back" / "LICENSE").read_bytes() == SMALL_FILES["LICENSE"]
    assert {"README.md", "BASE_MODEL_README.md", "msm_run.yaml"} <= manifest.files.keys()
    assert orjson.loads((tmp_path / "back" / EXPORT_FILE).read_bytes())["lineage"][1]["stage"] == (
        "midtrain"
    )
