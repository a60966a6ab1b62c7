from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import (
    STATE_FILE,
    iteration_folder,
    resolve_checkpoint,
)
from tests.unit.convert.hf_folders import Sizes, tensors_of
from tests.unit.convert.training_checkpoints import read_all, write_trained


@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_export_of_padded_sharded_float32_with_optimizer_state(
    checkpoint: Path, tmp_path: Path, num_shards: int
) -> None:
    tensors = read_all(checkpoint)
    for key in ("embedding.word_embeddings.weight", "output_layer.weight"):
        tensors[key] = torch.cat([tensors[key], torch.full((67, 24), 9.0).bfloat16()])
    tensors = {key: tensor.float() for key, tensor in tensors.items()}
    tensors["optimizer.state.exp_avg.output_layer.weight"] = torch.ones(8, 24)
    tensors["chained_0.optimizer.state.fp32_param.x"] = torch.ones(8)
    write_trained(checkpoint, tmp_path / "trained", tensors, num_shards=num_shards)
    manifest = export_hf(tmp_path / "trained", tmp_path / "back")
    assert (manifest.phase, manifest.iteration) == ("midtrain", 7)
    found = load_file(tmp_path / "back" / "model.safetensors")
    wanted = tensors_of(Sizes())
    assert found.keys() == wanted.keys()
    assert all(found[name].dtype == torch.bfloat16 for name in found)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_unmapped_missing_and_misshapen_tensors_are_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    key = "decoder.layers.1.mlp.linear_fc2.weight"
    good = read_all(checkpoint)
    for tensors, message in (
        ({name: tensor for name, tensor in good.items() if name != key}, rf"Missing \(1\): {key}"),
        (good | {"decoder.layers.0.q_norm": torch.ones(2)}, r"Not in the mapping \(1\): .*q_norm"),
        (good | {key: torch.ones(24, 41)}, rf"'{key}' has size \(24, 41\).*asks for \(24, 40\)"),
        (good | {"output_layer.weight": torch.ones(60, 24)}, r"\(60, 24\).*asks for \(61, 24\)"),
    ):
        write_trained(checkpoint, tmp_path / "trained", tensors)
        with pytest.raises(CheckpointError, match=message):
            export_hf(tmp_path / "trained", tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_a_damaged_shard_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    write_trained(checkpoint, tmp_path / "trained", read_all(checkpoint), num_shards=2)
    shard = iteration_folder(tmp_path / "trained", 7) / "__1_0.distcp"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(CheckpointError, match=r"cannot be read \(__1_0.distcp: .*damaged"):
        export_hf(tmp_path / "trained", tmp_path / "back")
    assert list(tmp_path.glob("*back*")) == []


def test_a_bit_that_flipped_in_the_checkpoint_is_found(checkpoint: Path, tmp_path: Path) -> None:
    (weights,) = resolve_checkpoint(checkpoint).glob("*.distcp")
    content = bytearray(weights.read_bytes())
    norm = MegatronCheckpoint(weights.parent).read("decoder.final_layernorm.weight")
    content[content.index(norm.view(torch.uint8).numpy().tobytes())] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"__0_0.distcp: sha256 .* differs .* damaged"):
        export_hf(checkpoint, tmp_path / "back")
    assert list(tmp_path.glob("*back*")) == []
    export_hf(checkpoint, tmp_path / "back", check=False)


def test_a_tampered_hf_folder_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = iteration_folder(checkpoint, 0) / "hf" / "chat_template.jinja"
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))
    with pytest.raises(CheckpointError, match=r"chat_template.jinja: sha256"):
        export_hf(checkpoint, tmp_path / "back")


def test_a_folder_that_is_no_checkpoint(tmp_path: Path, hf_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{hf_folder}: no checkpoint here"):
        export_hf(hf_folder, tmp_path / "back")


def test_an_incomplete_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    (iteration_folder(checkpoint, 0) / STATE_FILE).unlink()
    with pytest.raises(CheckpointError, match="incomplete"):
        export_hf(checkpoint, tmp_path / "back")
