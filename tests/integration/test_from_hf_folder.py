"""A run that starts from a Hugging Face folder, without an import."""

import dataclasses
import os
import shutil
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from megatron_msm.cli import build_app
from megatron_msm.config.load import load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.convert.exporting import export_hf
from megatron_msm.errors import CheckpointError, ConfigError
from megatron_msm.formats.checkpoint_folder import read_checkpoint_state, resolve_checkpoint
from megatron_msm.train.base import make_base
from megatron_msm.train.checkpoints.resume import PhaseStart, next_phase
from megatron_msm.train.checks import checked_run
from tests.integration.forked_ranks import output, train
from tests.integration.training_runs import assert_same_result, assert_same_weights, msm

OF_HF = "model={hf: hf}"


def test_it_is_the_run_from_an_import_of_that_folder(finished: Path, run_folder: Path) -> None:
    shutil.move(run_folder / "base", run_folder / "unused")
    planned = msm("plan", "run.yaml", OF_HF, "--json", cwd=run_folder)
    assert planned.returncode == 0, planned.stderr
    assert train(run_folder, OF_HF, num_ranks=2) == 0, output(run_folder)
    assert_same_result(run_folder, finished)
    assert not list((run_folder / "train" / "_base").glob("*.distcp"))
    states = [
        read_checkpoint_state(resolve_checkpoint(folder / "train" / "sft"))
        for folder in (run_folder, finished)
    ]
    assert states[0].lineage[0] == states[1].lineage[0]
    # Resumed, with the weights of the phase before as they were saved.
    shutil.rmtree(run_folder / "train" / "sft")
    assert train(run_folder, OF_HF, num_ranks=2) == 0, output(run_folder)
    resumed = read_checkpoint_state(resolve_checkpoint(run_folder / "train" / "sft"))
    assert resumed.lineage == states[0].lineage
    assert_same_weights(run_folder, finished, "sft")
    manifest = export_hf(run_folder / "train" / "sft", run_folder / "back")
    assert manifest.lineage[0].details["source"] == "hf"
    for name in ("tokenizer.json", "config.json", "chat_template.jinja"):
        assert (run_folder / "back" / name).read_bytes() == (run_folder / "hf" / name).read_bytes()


def started(config: RunConfig) -> PhaseStart | None:
    """Return where `msm train` would go on."""
    return next_phase(dataclasses.replace(checked_run(config), base=make_base(config)))


PLANNING = {
    "train --plan-only": ("train", "run.yaml", OF_HF, "--plan-only"),
    "plan": ("plan", "run.yaml", OF_HF),
    "prep rows": ("prep", "rows", "run.yaml", OF_HF, "--phase", "sft", "--step", "1"),
}


@pytest.mark.parametrize("command", PLANNING.values(), ids=PLANNING.keys())
def test_planning_writes_nothing_and_hashes_no_weights(
    run_folder: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was hashed")

    monkeypatch.chdir(run_folder)
    for module in ("megatron_msm.convert.import_sources", "megatron_msm.train.hf_base"):
        monkeypatch.setattr(f"{module}.sha256_of_file", refuse)
    before = sorted(run_folder.rglob("*"))
    result = CliRunner().invoke(build_app(), command)
    assert result.exit_code == 0, (result.output, result.exception)
    assert sorted(run_folder.rglob("*")) == before


def test_other_weights_are_another_run(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = (OF_HF, "parallel.data=1", "phases.midtrain.duration={steps: 2}")
    assert train(run_folder, *short) == 0, output(run_folder)
    monkeypatch.chdir(run_folder)
    config = load_config(Path("run.yaml"), RunConfig, short)
    weights, model_config = Path("hf/model.safetensors"), Path("hf/config.json")
    os.utime(weights)  # touched: hashed again, and found to be the same
    assert started(config) is None
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ConfigError, match=r"trained with another .* parent checkpoint"):
        started(config)
    changed = orjson.loads(model_config.read_bytes()) | {"num_hidden_layers": 5}
    model_config.write_bytes(orjson.dumps(changed))
    with pytest.raises(CheckpointError, match=r"Missing \(\d+\): model.layers.4"):
        checked_run(config)
