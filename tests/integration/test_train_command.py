"""`msm train` as a user meets it: resume after a kill, torchrun, wrong input."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import torch

from megatron_msm.formats.checkpoint_folder import read_checkpoint_state, resolve_checkpoint
from tests.distributed.ranks import free_port
from tests.integration.training_runs import (
    assert_same_result,
    metrics_rows,
    msm,
    start_training,
    wait_for_step,
)


def test_phases_run_in_order_and_leave_checkpoints(finished: Path) -> None:
    phases = [row["phase"] for row in metrics_rows(finished)]
    assert phases == sorted(phases)
    assert set(phases) == {"midtrain", "sft"}
    midtrain = read_checkpoint_state(resolve_checkpoint(finished / "train" / "midtrain"))
    sft = read_checkpoint_state(resolve_checkpoint(finished / "train" / "sft"))
    assert midtrain.phase_complete
    assert sft.phase_complete
    assert [entry.stage for entry in sft.lineage] == ["import", "midtrain", "sft"]
    assert sft.lineage[-1].details["parent"] == midtrain.identity
    assert list((finished / "train" / "tensorboard" / "sft").glob("events.*"))
    first, *_, last = [float(row["loss/lm_nats"]) for row in metrics_rows(finished)]
    assert last < first


@pytest.mark.parametrize(
    ("phase", "step"), [("midtrain", 6), ("sft", 5)], ids=["in-midtrain", "in-sft"]
)
def test_killed_between_checkpoints_and_restarted_ends_bit_for_bit_the_same(
    run_folder: Path, finished: Path, phase: str, step: int
) -> None:
    kill_at(run_folder, phase=phase, step=step)
    assert not (run_folder / "train" / "sft" / "iter_0000006").exists()

    done = msm("train", "run.yaml", cwd=run_folder)

    assert done.returncode == 0, done.stderr
    saved = step - step % (5 if phase == "midtrain" else 4)
    assert f"resuming   {phase} after step {saved}" in done.stdout
    assert_same_result(run_folder, finished)


def kill_at(folder: Path, *, phase: str, step: int) -> None:
    """Start training and SIGKILL the launcher once the step shows in the metrics."""
    process = start_training(folder)
    wait_for_step(folder, process, phase=phase, step=step)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # the ranks follow their launcher


def test_rerun_of_a_finished_run_changes_nothing(finished: Path) -> None:
    before = metrics_rows(finished)
    done = msm("train", "run.yaml", cwd=finished)
    assert done.returncode == 0
    assert "nothing left to train" in done.stdout
    assert metrics_rows(finished) == before


def test_joins_ranks_that_torchrun_started(run_folder: Path, finished: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python"),
            *(sys.executable, "-m", "megatron_msm.cli", "train", "run.yaml"),
        ],
        cwd=run_folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert_same_result(run_folder, finished)


def test_checkpoint_of_one_layout_continues_under_another(run_folder: Path, finished: Path) -> None:
    kill_at(run_folder, phase="midtrain", step=7)
    done = msm("train", "run.yaml", "parallel.data=1", "parallel.tensor=3", cwd=run_folder)
    assert done.returncode == 0, done.stderr
    losses = [float(row["loss/lm_nats"]) for row in metrics_rows(run_folder)]
    expected = [float(row["loss/lm_nats"]) for row in metrics_rows(finished)]
    assert losses == pytest.approx(expected, rel=1e-4)


WRONG = {
    "unknown key": (["runtime.dtyp=fp32"], ["dtyp", "Did you mean 'dtype'", "timeout_min"]),
    "tensor size": (
        ["parallel.tensor=2"],
        ["parallel.tensor", "3 key/value heads", "parallel.data=4"],
    ),
    "pipeline size": (
        ["parallel.pipeline=3"],
        ["parallel.pipeline", "4 layers", "layers_per_stage=[1,2,1]"],
    ),
    "batch": (["phases.sft.global_batch_size=3"], ["'sft'", "global_batch_size 3", "= 2"]),
    "no duration": (["phases.sft.duration={}"], ["exactly one of `epochs`, `steps` and `tokens`"]),
    "warm-up": (["phases.sft.schedule.warmup_steps=6"], ["phases.sft.schedule", "6 steps"]),
    "no dataset": (["phases.sft.data.prefixes=[data/none]"], ["data/none", "msm prep"]),
    "no checkpoint": (["model.checkpoint=none"], ["none", "msm convert import"]),
    "too long": (["phases.sft.seq_length=10000"], ["seq_length", "10000", "512 positions"]),
    "chat too long": (["phases.sft.seq_length=20"], ["chat in row", "seq_length 20"]),
    "no gpu": (["runtime.device=cuda"], ["runtime.device", "msm doctor"]),
    "decay": (["phases.sft.optimizer.beta2=1.0"], ["beta2", "less than 1", "Found 1.0"]),
    "infinity": (["phases.sft.optimizer.lr=.inf"], ["lr", "finite", "Found inf"]),
    "not held out": (
        ["phases.sft.validation={prefixes: [data/docs]}"],
        ["phases.sft.validation.prefixes", "phase midtrain trains on", "admit_training_data=true"],
    ),
    "no such list element": (["phases.aft.seq_length=10"], ["'aft'", "midtrain", "sft"]),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_wrong_configuration_ends_with_status_2_and_one_message(
    run_folder: Path, case: str
) -> None:
    if case == "no gpu" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    overrides, expected = WRONG[case]
    done = msm("train", "run.yaml", *overrides, cwd=run_folder)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for text in expected:
        assert text in done.stderr
    assert not list((run_folder / "train").glob("*/iter_*"))


def test_dataset_of_another_tokenizer_is_refused(run_folder: Path) -> None:
    manifest = run_folder / "data" / "docs.manifest.json"
    content = orjson.loads(manifest.read_bytes())
    manifest.write_bytes(orjson.dumps({**content, "tokenizer_sha256": "0" * 64}))
    done = msm("train", "run.yaml", cwd=run_folder)
    assert done.returncode == 2
    assert "data/docs" in done.stderr
    assert "tokenizer" in done.stderr


def test_continuing_with_other_settings_is_refused(finished: Path) -> None:
    done = msm("train", "run.yaml", "phases.sft.optimizer.lr=2e-3", cwd=finished)
    assert done.returncode == 2, done.stderr
    assert "iter_0000006" in done.stderr
    assert "(phases.sft.optimizer.lr: was 0.001, now 0.002; " in done.stderr
    assert "another `out`" in done.stderr


def test_fields_that_the_lineage_has_as_hashes_are_named_too(finished: Path) -> None:
    changes = ["runtime.dtype=bf16", "phases.midtrain.data.packing.align=2", "lora={rank: 4}"]
    done = msm("train", "run.yaml", *changes, "phases.sft.micro_batch_size=2", cwd=finished)
    assert done.returncode == 2, done.stderr
    assert "runtime.dtype: was fp32, now bf16" in done.stderr
    assert "phases.midtrain.data.packing.align: was 1, now 2" in done.stderr
    assert "lora: was left out, now " in done.stderr
    for without_effect in ("micro_batch_size", "config_sha256", "out:"):
        assert without_effect not in done.stderr


def test_a_dataset_changed_in_place_is_found_on_resume(run_folder: Path) -> None:
    first = start_training(run_folder, "phases.midtrain.duration={steps: 400}")
    wait_for_step(run_folder, first, phase="midtrain", step=5)
    first.terminate()
    assert first.wait(60) == 75
    tokens = run_folder / "data" / "docs.bin"
    content = tokens.read_bytes()
    tokens.write_bytes(content[::-1])
    done = msm("train", "run.yaml", "phases.midtrain.duration={steps: 400}", cwd=run_folder)
    assert done.returncode == 2, done.stderr
    assert "data/docs.bin: the bytes are not those that `msm prep` wrote" in done.stderr


def test_a_second_start_in_the_same_folder_is_refused_and_the_first_goes_on(
    run_folder: Path,
) -> None:
    first = start_training(run_folder, "phases.midtrain.duration={steps: 400}")
    wait_for_step(run_folder, first, phase="midtrain", step=1)
    second = msm("train", "run.yaml", "phases.midtrain.duration={steps: 400}", cwd=run_folder)
    assert second.returncode == 2, second.stderr
    assert f"is being trained in by process {first.pid} on " in second.stderr
    joined = msm(
        *("train", "run.yaml", "parallel.data=1"),
        cwd=run_folder,
        RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(free_port()),
    )
    assert joined.returncode == 2, joined.stderr
    assert f"is being trained in by process {first.pid} on " in joined.stderr
    first.kill()  # leaves the lock behind
    first.wait()
    done = msm("train", "run.yaml", "seed=7", cwd=run_folder)  # another run, so it ends at once
    assert f"taken over from process {first.pid} on " in done.stderr
    assert not list((run_folder / "train").glob("_lock*"))


def test_context_parallel_ranks_show_the_loss_of_one_rank(run_folder: Path) -> None:
    shared = ["parallel.data=1", "phases.sft.duration.steps=1"]
    aligned = [f"phases.{phase}.data.packing.align=4" for phase in ("midtrain", "sft")]
    losses = []
    for out, layout in (("context", ["parallel.context=2"]), ("single", [])):
        done = msm("train", "run.yaml", f"out={out}", *shared, *aligned, *layout, cwd=run_folder)
        assert done.returncode == 0, done.stderr
        rows = [orjson.loads(line) for line in (run_folder / out / "metrics.jsonl").open()]
        losses.append([float(row["loss/lm_nats"]) for row in rows])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_an_illegal_layout_ends_before_any_rank_starts(run_folder: Path) -> None:
    done = msm("train", "run.yaml", "parallel.tensor=2", "parallel.data=1", cwd=run_folder)
    assert done.returncode == 2
    assert "parallel.tensor: 2 does not divide the model's 3 key/value heads" in done.stderr
    assert "Nearest legal layouts on 2 ranks: parallel.tensor=1 parallel.data=2" in done.stderr
    assert not (run_folder / "train").exists()
