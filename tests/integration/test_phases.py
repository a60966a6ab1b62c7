"""What one phase hands to the next, and a run that ends by the clock."""

import shutil
from pathlib import Path

import pytest
import torch

from megatron_msm.config.load import load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import resolve_checkpoint
from megatron_msm.train.checks import checked_run
from tests.integration.forked_ranks import output, train
from tests.integration.training_runs import metrics_rows, weights

PHASE = """\
  - name: {name}
    data:
      prefixes: [data/docs]
    seq_length: 64
    global_batch_size: {batch}
    duration: {{steps: {steps}}}
    optimizer: {{lr: 1e-2, beta2: 0.9}}
    schedule: {{kind: constant, warmup_steps: 0}}
    optimizer_state: {state}
"""
HEAD = "out: train\nmodel: {checkpoint: base}\nruntime: {device: cpu, dtype: fp32}\nphases:\n"


def losses(prepared: Path, folder: Path, *phases: tuple[str, int, str]) -> list[float]:
    """Train phases whose every step sees all of the data, so that the order is of no account."""
    shutil.copytree(prepared, folder)
    run_file = folder / "run.yaml"
    for batch in (1, num_packs(folder, run_file)):
        texts = (PHASE.format(name=n, batch=batch, steps=s, state=o) for n, s, o in phases)
        run_file.write_text(HEAD + "".join(texts))
    assert train(folder) == 0, output(folder)
    return [float(row["loss/lm_nats"]) for row in metrics_rows(folder)]


def num_packs(folder: Path, run_file: Path) -> int:
    """Return how many packed sequences the data has."""
    run_file.write_text(HEAD + PHASE.format(name="a", batch=1, steps=1, state="fresh"))
    paths = [f"model.checkpoint={folder}/base", f"phases.a.data.prefixes=[{folder}/data/docs]"]
    config = load_config(run_file, RunConfig, [*paths, "phases.a.duration={epochs: 1}"])
    return checked_run(config).phases[0].total_packs


def test_carried_optimizer_state_goes_on_as_if_the_phase_had_not_ended(
    prepared: Path, tmp_path: Path
) -> None:
    whole = losses(prepared, tmp_path / "whole", ("a", 6, "fresh"))
    carried = losses(prepared, tmp_path / "carried", ("a", 3, "fresh"), ("b", 3, "carry"))
    fresh = losses(prepared, tmp_path / "fresh", ("a", 3, "fresh"), ("b", 3, "fresh"))
    assert carried == pytest.approx(whole, rel=1e-5)
    assert fresh[:4] == pytest.approx(whole[:4], rel=1e-5)
    assert abs(fresh[5] / whole[5] - 1) > 1e-3, "the state would make no difference here"


def test_the_first_phase_has_nothing_to_carry(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        HEAD + PHASE.format(name="a", batch=1, steps=1, state="carry")
    )
    with pytest.raises(ConfigError, match="phase 'a': optimizer_state: carry needs a phase before"):
        load_config(tmp_path / "run.yaml", RunConfig)


def test_a_phase_that_ended_without_its_state_cannot_be_carried_on(
    prepared: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    losses(prepared, folder, ("a", 1, "fresh"))
    run_file = folder / "run.yaml"
    run_file.write_text(
        run_file.read_text() + PHASE.format(name="b", batch=4, steps=1, state="carry")
    )
    assert train(folder) == 2
    assert "Phase b asks for optimizer_state: carry, and the last checkpoint" in output(folder)


def test_a_run_ends_in_order_when_its_time_is_over(prepared: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    limit = ["parallel.data=1", "runtime.stop_after_min=0.1"]
    assert train(folder, *limit, "phases.midtrain.duration={steps: 100000}") == 75, output(folder)
    last = metrics_rows(folder)[-1]["step"]
    assert f"after step {last} of midtrain, which is saved" in output(folder)
    assert (folder / "train" / "midtrain" / f"iter_{last:07d}").exists()


def is_start_of(trained: torch.Tensor, base: torch.Tensor) -> bool:
    """Return whether they are equal but for rows that pad the vocabulary."""
    return torch.equal(trained[: len(base)], base)


def test_frozen_weights_are_those_of_the_base_and_another_choice_is_another_run(
    prepared: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    short = [
        "parallel.data=1",
        "phases.midtrain.duration={steps: 2}",
        "phases.sft.duration.steps=1",
    ]
    frozen = "freeze=[model.embed_tokens.*, 'model.layers.[01].*']"
    assert train(folder, *short, frozen) == 0, output(folder)
    assert "frozen     model.embed_tokens.*, model.layers.[01].*: 13 weights" in output(folder)
    base = MegatronCheckpoint(resolve_checkpoint(folder / "base"))
    trained = weights(folder, "sft")
    same = {key for key in base.tensors if is_start_of(trained[key], base.read(key))}
    stays = ("embedding.", "decoder.layers.0.", "decoder.layers.1.")
    assert same == {key for key in base.tensors if key.startswith(stays)}
    assert train(folder, *short, "freeze=[model.embed_tokens.*]") == 2
    assert "freeze: was ['model.embed_tokens.*', 'model.layers.[01].*'], now" in output(folder)
