"""Models in many files, and an export that notices what it wrote wrong."""

from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file

from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.hashing_file import HashingFile
from megatron_msm.convert.importing import import_hf
from megatron_msm.convert.megatron import writer as megatron_writer
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import EXPORT_FILE, LineageEntry
from tests.unit.convert.hf_folders import SMALL_FILES, Sizes, tensors_of
from tests.unit.convert.training_checkpoints import read_all, write_trained


def test_many_files_are_written_one_after_the_other(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(megatron_writer, "MAX_FILE_BYTES", 4_000)
    state = import_hf(hf_folder, tmp_path / "megatron")
    assert len([name for name in state.files if name.endswith(".distcp")]) > 2
    manifest = export_hf(tmp_path / "megatron", tmp_path / "back", max_shard_size="9KB")
    assert len([name for name in manifest.files if name.endswith(".safetensors")]) > 2
    found: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "back").glob("*.safetensors"):
        found |= load_file(file)
    wanted = tensors_of(Sizes())
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("lost", ["first", "last"])
def test_a_bit_that_the_disk_lost_is_found(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    def write_and_lose(self: HashingFile, tensor: torch.Tensor, offset: int) -> None:
        if tensor.shape == (Sizes().hidden,):
            tensor = tensor.clone()
            tensor.view(torch.int16)[0 if lost == "first" else -1] ^= 1
        write_tensor(self, tensor, offset)

    write_tensor = HashingFile.write_tensor
    monkeypatch.setattr(HashingFile, "write_tensor", write_and_lose)
    with pytest.raises(CheckpointError, match=r"norm\.weight', read back, is not what"):
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
