"""A run whose loss stops being finite: what it wrote is read by status and by the report."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from evals.report.inputs import load_curve
from megatron_msm.formats.checkpoint_folder import iteration_folder, read_checkpoint_state
from megatron_msm.formats.files import write_json_atomic
from slurm.stages.record import DoneRecord, StageRecord
from slurm.stages.status import all_statuses
from tests.integration.forked_ranks import output, train

DIVERGING = (
    "parallel.data=1",
    "phases.midtrain.optimizer={lr: 3e38, clip_grad_norm: null}",
    "phases.midtrain.schedule={warmup_steps: 0}",
    "phases.midtrain.duration={steps: 4}",
)


def test_status_and_report_read_the_metrics_of_a_run_that_diverged(
    run_folder: Path, tmp_path: Path
) -> None:
    train(run_folder, *DIVERGING)
    metrics = run_folder / "train" / "metrics.jsonl"
    curve = load_curve(f"midtrain={metrics}")
    assert curve.num_not_finite > 0, output(run_folder)
    assert curve.losses[0] > 0

    stage = Path("stages", "train-ab")
    (tmp_path / stage / "run").mkdir(parents=True)
    shutil.copy(metrics, tmp_path / stage / "run")
    record = StageRecord(
        identity="ab", kind="train", label="x", ingredients=(), arguments=(), makes=(), num_steps=9
    )
    done = DoneRecord(identity="ab", made={}, seconds=1.0, host="here")
    write_json_atomic(tmp_path / stage / "stage.json", record.model_dump(mode="json"))
    write_json_atomic(tmp_path / stage / "done.json", done.model_dump(mode="json"))
    [status] = all_statuses(tmp_path, {stage: "midtrain"})
    assert (status.step, status.loss) == (curve.steps[-1], None)
    assert status.seconds_left is not None


def test_a_run_that_saves_before_its_first_update_goes_on_from_there(run_folder: Path) -> None:
    weights = load_file(run_folder / "hf" / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], torch.nan)
    save_file(weights, run_folder / "hf" / "model.safetensors", metadata={"format": "pt"})
    skipping = (
        *("model={hf: hf}", "parallel.data=1", "phases.midtrain.checkpoint.save_interval_steps=1"),
        "phases.midtrain.optimizer={lr: 1e-3, max_skipped_in_a_row: 3}",
    )
    assert train(run_folder, *skipping) != 0
    assert "not finite in 3 steps in a row" in output(run_folder)
    saved = read_checkpoint_state(iteration_folder(run_folder / "train" / "midtrain", 2))
    assert saved.skipped_steps == 2
    assert train(run_folder, *skipping) != 0
    assert "not finite in 3 steps in a row, the last of them step 3" in output(run_folder)
