import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from megatron_msm.convert.cli import app
from megatron_msm.convert.verifying import verify
from megatron_msm.errors import CheckpointError
from tests.unit.convert.hf_folders import Sizes, write_hf_folder
from tests.unit.convert.training_checkpoints import read_all, write_trained

runner = CliRunner()
FC1 = "decoder.layers.1.mlp.linear_fc1.weight"


def test_an_import_is_the_same_model_to_the_last_logit(hf_folder: Path, checkpoint: Path) -> None:
    pytest.importorskip("transformers")
    report = verify(hf_folder, checkpoint)
    assert report.num_tensors == 2 + 9 * 2 + 1
    assert report.differences == ()
    assert report.forward is not None
    assert report.forward.whole_model.relative < 1e-6
    assert report.forward.long_document.relative < 1e-6
    assert report.forward.long_document.num_positions == 64
    assert report.is_same_model


def test_differences_are_found_and_sorted(
    hf_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    tensors = read_all(checkpoint)
    tensors[FC1][-1, -1] += 2.0
    tensors["decoder.final_layernorm.weight"] = tensors["decoder.final_layernorm.weight"].float()
    tensors["output_layer.weight"][0, 0] = torch.nan
    write_trained(checkpoint, tmp_path / "trained", tensors)
    report = verify(hf_folder, tmp_path / "trained", logits=False)
    found = {difference.name: difference.max_abs for difference in report.differences}
    assert list(found) == [
        "lm_head.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.norm.weight",
    ]
    assert found["lm_head.weight"] == float("inf")
    assert found["model.layers.1.mlp.up_proj.weight"] == pytest.approx(2.0, rel=0.01)
    assert found["model.norm.weight"] == 0.0
    assert not report.is_same_model


def test_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    write_hf_folder(tmp_path / "other", Sizes(ffn=48))
    with pytest.raises(CheckpointError, match="checkpoint of another model"):
        verify(tmp_path / "other", checkpoint, logits=False)


def test_commands(hf_folder: Path, tmp_path: Path) -> None:
    megatron, back = str(tmp_path / "megatron"), str(tmp_path / "back")
    result = runner.invoke(app, ["import", str(hf_folder), megatron])
    assert result.exit_code == 0, result.output
    assert f"imported llama into {megatron}" in result.stdout
    result = runner.invoke(app, ["export", megatron, back, "--max-shard-size", "9KB", "--json"])
    assert result.exit_code == 0, result.output
    exported = json.loads(result.stdout)
    assert exported["weight_files"] > 1
    assert exported["bytes"] > 0
    result = runner.invoke(app, ["verify", str(hf_folder), megatron, "--no-logits"])
    assert result.exit_code == 0, result.output
    assert "21 of 21 tensors are equal bit for bit\nthe same model" in result.stdout


def test_verify_ends_with_status_1_when_the_models_differ(
    hf_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    tensors = read_all(checkpoint)
    tensors[FC1][0, 0] += 1.0
    write_trained(checkpoint, tmp_path / "trained", tensors)
    arguments = ["verify", str(hf_folder), str(tmp_path / "trained"), "--no-logits"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert "model.layers.1.mlp.gate_proj.weight: largest difference" in result.stdout
    assert "NOT the same model" in result.stdout
    shown = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert shown["same_model"] is False


def test_the_command_module_imports_no_torch() -> None:
    code = "import sys, megatron_msm.convert.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
