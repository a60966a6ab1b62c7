import pickle
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import save_file

from megatron_msm.convert import importing
from megatron_msm.convert.importing import import_hf
from megatron_msm.errors import CheckpointError
from tests.unit.convert.hf_folders import Sizes, config_of, tensors_of, write_hf_folder

FC2 = "model.layers.1.mlp.down_proj.weight"


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def other_architecture(folder: Path) -> None:
    config = config_of(Sizes()) | {"model_type": "mamba"}
    (folder / "config.json").write_bytes(orjson.dumps(config))


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


def missing_tensor(folder: Path) -> None:
    tensors = tensors_of(Sizes())
    del tensors[FC2]
    save_file(tensors, folder / "model.safetensors")


def unexpected_tensor(folder: Path) -> None:
    name = "model.layers.0.self_attn.q_norm.weight"
    save_file(tensors_of(Sizes()) | {name: torch.ones(8)}, folder / "model.safetensors")


def wrong_shape(folder: Path) -> None:
    save_file(tensors_of(Sizes()) | {FC2: torch.ones(24, 41)}, folder / "model.safetensors")


def quantised(folder: Path) -> None:
    tensors = tensors_of(Sizes()) | {FC2: torch.ones(24, 40, dtype=torch.int8)}
    save_file(tensors, folder / "model.safetensors")


def tied_head_differs(folder: Path) -> None:
    (folder / "config.json").write_bytes(orjson.dumps(config_of(Sizes(tied=True))))


def index_leads_outside(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {name: "../outside.safetensors" for name in tensors_of(Sizes())}}
    (folder / "model.safetensors.index.json").write_bytes(orjson.dumps(index))


def weights_link_leads_outside(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.rename(folder.parent / "outside.safetensors")
    path.symlink_to(folder.parent / "outside.safetensors")


def small_file_link_leads_outside(folder: Path) -> None:
    (folder / "NOTICE").symlink_to("/etc/hostname")


def index_names_a_tensor_that_is_not_there(folder: Path) -> None:
    index = {"weight_map": {FC2: "model.safetensors", "x": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_bytes(orjson.dumps(index))


def index_is_not_json(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_bytes(b"{")


def malicious_bin(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(folder / "touched")))


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_config, r"config\.json: not found"),
        (other_architecture, r"model_type 'mamba' is not supported"),
        (no_tokenizer, r"tokenizer\.json: no such file"),
        (no_weights, r"no weights found"),
        (truncated, r"model\.safetensors: not a complete safetensors file"),
        (not_safetensors, r"model\.safetensors: not a complete safetensors file"),
        (missing_tensor, rf"Missing \(1\): {FC2}"),
        (unexpected_tensor, r"Not in the mapping \(1\): .*q_norm"),
        (wrong_shape, rf"{FC2}' has size \(24, 41\), config.json asks for \(24, 40\)"),
        (quantised, rf"{FC2}' has dtype I8.*before quantisation"),
        (tied_head_differs, r"'lm_head\.weight' differs from 'model\.embed_tokens\.weight'"),
        (index_leads_outside, r"'\.\./outside\.safetensors' leads outside"),
        (weights_link_leads_outside, r"'model\.safetensors' leads outside .*outside\.safetensors"),
        (small_file_link_leads_outside, r"'NOTICE' leads outside the folder"),
        (index_names_a_tensor_that_is_not_there, r"'x' should be in model\.safetensors"),
        (index_is_not_json, r"index\.json: not a weight index"),
        (malicious_bin, r"pytorch_model\.bin: not loaded"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_is_refused_and_nothing_is_left(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "hf"
    write_hf_folder(folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        import_hf(folder, tmp_path / "megatron")
    assert str(folder) in str(caught.value)
    assert not (tmp_path / "megatron").exists()
    assert not (folder / "touched").exists()


def test_a_shard_that_shrinks_while_it_is_read_leaves_nothing(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truncate_first(*args: object) -> None:
        path = hf_folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-500])

    monkeypatch.setattr(importing, "check_disk_space", truncate_first)
    with pytest.raises(CheckpointError, match=r"model.safetensors: ends inside tensor"):
        import_hf(hf_folder, tmp_path / "megatron")
    assert list((tmp_path / "megatron").iterdir()) == []


def test_a_taken_target_is_refused(hf_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="already holds a checkpoint"):
        import_hf(hf_folder, checkpoint)
    import_hf(hf_folder, checkpoint, force=True)
    (checkpoint / "iter_0000500").mkdir()
    with pytest.raises(CheckpointError, match="training run"):
        import_hf(hf_folder, checkpoint, force=True)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        import_hf(hf_folder, tmp_path / "file")


def test_a_full_disk_is_seen_before_writing(hf_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="GB are needed"):
        importing.check_disk_space(tmp_path / "not" / "there", 2**62)
