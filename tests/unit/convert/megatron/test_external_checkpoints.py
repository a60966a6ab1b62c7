"""External checkpoints: those of other tools, in the folders and under the names that they use."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from megatron_msm.convert.cli import app
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_megatron
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.unit.convert.hf_folders import Sizes, tensors_of, write_hf_folder
from tests.unit.convert.training_checkpoints import read_all, write_shards

Tensors = dict[str, torch.Tensor]


def stacked(tensors: Tensors) -> Tensors:
    """Put the layers of each tensor into one, as megatron-core does by default."""
    found: dict[str, list[torch.Tensor]] = {}
    for key, tensor in tensors.items():
        before, dot, after = key.partition("layers.")
        name = before + dot + after.partition(".")[2] if dot else key
        found.setdefault(name, []).append(tensor)
    return {
        key: torch.stack(parts) if "layers." in key else parts[0] for key, parts in found.items()
    }


def write_megatron_lm(root: Path, tensors: Tensors) -> None:
    folder = iteration_folder(root, 500)
    folder.mkdir(parents=True)
    write_shards(folder, stacked(tensors), 2)
    (root / "latest_checkpointed_iteration.txt").write_text("500\n")


def write_bridge(root: Path, tensors: Tensors) -> None:
    for iteration in (20, 30):
        folder = iteration_folder(root, iteration)
        folder.mkdir(parents=True)
        write_shards(folder, stacked(tensors) if iteration == 30 else {}, 1)
        (folder / "run_config.yaml").write_text("model: {}\n")
    (root / "latest_train_state.pt").write_bytes(b"a pickle that is not opened")


def write_nemo(root: Path, tensors: Tensors) -> None:
    (root / "weights").mkdir(parents=True)
    (root / "context").mkdir()
    optimizer = {"optimizer.state.exp_avg.module.output_layer.weight": torch.ones(3)}
    named = {f"module.{key}": tensor for key, tensor in stacked(tensors).items()}
    write_shards(root / "weights", named | optimizer, 3)


def write_release(root: Path, tensors: Tensors) -> None:
    (root / "release").mkdir(parents=True)
    write_shards(root / "release", stacked(tensors), 1)
    (root / "latest_checkpointed_iteration.txt").write_text("release")


@pytest.mark.parametrize("write", [write_megatron_lm, write_release, write_bridge, write_nemo])
def test_their_checkpoints_become_ours(
    write: Callable[[Path, Tensors], None], hf_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    tensors = read_all(checkpoint)
    for key in ("embedding.word_embeddings.weight", "output_layer.weight"):
        tensors[key] = torch.cat([tensors[key], torch.full((67, 24), 9.0).bfloat16()])
    write(tmp_path / "theirs", tensors)
    (hf_folder / "model.safetensors").unlink()  # config and tokenizer are enough
    arguments = ["import", str(tmp_path / "theirs"), str(tmp_path / "ours"), "--hf", str(hf_folder)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    export_hf(tmp_path / "ours", tmp_path / "back")
    found, wanted = load_file(tmp_path / "back" / "model.safetensors"), tensors_of(Sizes())
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_another_model_is_refused_by_name(
    hf_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    write_megatron_lm(tmp_path / "theirs", read_all(checkpoint))
    for sizes, message in (
        (Sizes(tied=True), r"Not in the mapping \(1\): output_layer\.weight"),
        (Sizes(layers=3), r"linear_qkv\.layer_norm_weight' has size \(2, 24\).* \(3, 24\)"),
    ):
        write_hf_folder(tmp_path / "other", sizes)
        with pytest.raises(CheckpointError, match=message):
            import_megatron(tmp_path / "theirs", tmp_path / "other", tmp_path / "ours")
    with pytest.raises(CheckpointError, match="needs no import"):
        import_megatron(checkpoint, hf_folder, tmp_path / "ours")
    with pytest.raises(CheckpointError, match="no torch_dist checkpoint here"):
        import_megatron(hf_folder, hf_folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("rotary_base: 500000", "rotary_base is 500000, and by the folder of --hf it is 10000.0"),
        ("layernorm_epsilon: 1.0e-06", "layernorm_epsilon is 1e-06.* it is 1e-05"),
        ("rope_scaling: true", "rope_scaling is True.* it is False"),
        ("seq_len_interpolation_factor: 4.0", "seq_len_interpolation_factor is 4.0.* it is None"),
        ("position_embedding_type: yarn", "position_embedding_type is 'yarn'.* it is 'rope'"),
        ("[", "not YAML"),
    ],
)
def test_what_bridge_computed_otherwise_is_refused_by_name(
    model: str, message: str, hf_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    write_bridge(tmp_path / "theirs", read_all(checkpoint))
    config = tmp_path / "theirs/iter_0000030/run_config.yaml"
    config.write_text(f"model:\n  _target_: a.Provider\n  {model}\n")
    with pytest.raises(CheckpointError, match=message):
        import_megatron(tmp_path / "theirs", hf_folder, tmp_path / "ours")
    config.write_text("model:\n  rotary_base: 10000\n  layernorm_epsilon: 1.0e-05\n")
    import_megatron(tmp_path / "theirs", hf_folder, tmp_path / "ours")
