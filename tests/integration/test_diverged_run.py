"""A run whose loss stops being finite: what it wrote is read by status and by the report."""

import shutil
from pathlib import Path

from evals.report.inputs import load_curve
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
