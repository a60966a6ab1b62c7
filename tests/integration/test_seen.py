"""What a run shows: metrics, trackers, validation, parts of the data, a profile, skipped steps."""

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.integration.forked_ranks import output, start_ranks, train
from tests.integration.training_runs import (
    assert_same_result,
    metrics_rows,
    msm,
    wait_for_line,
)
from tests.tiny import write_jsonl

SETTINGS = (
    "parallel.data=1",
    "phases.midtrain.data={sources: [{prefix: data/docs, weight: 3}, "
    "{prefix: data/more, weight: 1}]}",
    "phases.midtrain.validation={prefixes: [data/heldout], interval_steps: 4, max_batches: 2}",
    "logging={loss_by: [source, domain], wandb: {project: tests, mode: offline, "
    "name: base+msm(a)#1, group: A study, tags: [a, seed 1]}, "
    "profile: {first_step: 2, num_steps: 1}}",
)


@pytest.fixture(scope="module")
def prepared(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("more") / "run")
    for name, fields in (("more", {}), ("heldout", {"role": "dev"})):
        rows: list[dict[str, Any]] = [
            {
                "text": f"{name} {i} " + "Wine ages. " * 9,
                "domain": ("red", "white")[i % 2],
                **fields,
            }
            for i in range(24)
        ]
        write_jsonl(folder / f"{name}.jsonl", rows)
        done = msm(
            *("prep", "docs", f"{name}.jsonl", "--tokenizer", "hf", "--out", f"data/{name}"),
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("finished") / "run")
    assert train(folder, *SETTINGS) == 0, output(folder)
    return folder


def phase_rows(folder: Path, phase: str) -> list[dict[str, Any]]:
    return [row for row in metrics_rows(folder) if row["phase"] == phase]


def test_a_line_has_every_number_by_its_documented_name(finished: Path) -> None:
    row = phase_rows(finished, "midtrain")[3]
    assert set(row) == {
        *("phase", "step", "loss/lm_nats", "optim/lr", "optim/grad_norm", "optim/skipped_steps"),
        *("tokens/loss", "tokens/processed", "throughput/tokens_per_s"),
        "throughput/loss_tokens_per_s",
        *("throughput/tflops_per_s_per_rank", "memory/peak_gib", "time/step_s", "time/data_s"),
        *("time/forward_backward_s", "time/optimizer_s", "time/validation_s"),
        *("validation/heldout_nats", "loss/source/docs_nats", "loss/source/more_nats"),
        *("loss/domain/none_nats", "loss/domain/red_nats", "loss/domain/white_nats"),
    }
    parts = sum(row[f"time/{part}_s"] for part in ("data", "forward_backward", "optimizer"))
    assert parts == pytest.approx(row["time/step_s"], rel=0.01)
    assert "time/save_s" in phase_rows(finished, "midtrain")[5]


def test_losses_of_parts_are_those_of_the_whole(finished: Path) -> None:
    for row in phase_rows(finished, "midtrain"):
        of_sources = [
            row[f"loss/source/{name}_nats"]
            for name in ("docs", "more")
            if f"loss/source/{name}_nats" in row
        ]
        assert min(of_sources) <= row["loss/lm_nats"] <= max(of_sources)
        # Only `docs` has rows without a domain, and all of its rows are.
        assert row.get("loss/domain/none_nats") == row.get("loss/source/docs_nats")


def test_validation_is_at_intervals_and_at_the_end_and_improves(finished: Path) -> None:
    rows = phase_rows(finished, "midtrain")
    losses = {
        row["step"]: row["validation/heldout_nats"]
        for row in rows
        if "validation/heldout_nats" in row
    }
    last = rows[-1]["step"]
    assert sorted(losses) == sorted({*range(4, last + 1, 4), last})
    assert losses[last] < losses[4]


def test_a_run_without_validation_and_parts_trains_the_same(
    finished: Path, prepared: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    assert train(folder, *SETTINGS[:2]) == 0, output(folder)
    shown = ("validation/", "loss/source", "loss/domain")
    for row, plain in zip(metrics_rows(finished), metrics_rows(folder), strict=True):
        kept = {k: v for k, v in row.items() if not k.startswith((*shown, "time", "thr", "mem"))}
        assert kept.items() <= plain.items()


def test_trackers_and_metrics_have_each_step_once_after_a_kill(
    prepared: Path, finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    (rank,) = start_ranks(folder, *SETTINGS)
    wait_for_line(folder, rank.is_alive, phase="midtrain", step=8)
    rank.kill()
    rank.join()
    assert train(folder, *SETTINGS) == 0, output(folder)
    assert_same_result(folder, finished)
    starts = [
        orjson.loads(line) for line in (folder / "train" / "starts.jsonl").read_bytes().splitlines()
    ]
    assert [(start["phase"], start["after_step"]) for start in starts] == [
        ("midtrain", 0),
        ("midtrain", 5),
    ]
    manifest = orjson.loads((folder / "data" / "docs.manifest.json").read_bytes())
    assert starts[1]["base"]["tokenizer_sha256"] == manifest["tokenizer_sha256"]
    assert starts[1]["from_checkpoint"]["folder"].endswith("midtrain/iter_0000005")
    assert starts[0]["from_checkpoint"]["identity"] == starts[0]["base"]["identity"]
    assert set(starts[1]["phases"][0]["data"]) == {"data/docs", "data/more"}
    assert starts[1]["versions"]["megatron-core"]
    for phase in ("midtrain", "sft"):
        events = EventAccumulator(str(folder / "train" / "tensorboard" / phase), {"scalars": 0})
        events.Reload()
        rows = phase_rows(folder, phase)
        shown = [
            (event.step, pytest.approx(event.value)) for event in events.Scalars("loss/lm_nats")
        ]
        assert [(row["step"], row["loss/lm_nats"]) for row in rows] == shown


def test_the_folder_has_a_profile_and_an_offline_wandb_run(finished: Path) -> None:
    out = finished / "train"
    trace = orjson.loads((out / "profile" / "midtrain_rank_0.json").read_bytes())
    assert any("mm" in str(event.get("name")) for event in trace["traceEvents"])
    shown = [path.read_bytes() for path in (out / "wandb").glob("offline-run-*/*.wandb")]
    assert shown  # each phase starts W&B, for one run
    for expected in (b"base+msm(a)#1", b"A study", b"seed 1"):
        assert all(expected in content for content in shown)
    assert (out / "wandb_run_id").exists()


def test_steps_that_are_not_finite_are_skipped_and_stop_the_run_with_their_rows(
    prepared: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    status = train(
        folder,
        "parallel.data=1",
        "phases.midtrain.optimizer={lr: 1e30, clip_grad_norm: null, max_skipped_in_a_row: 3}",
    )
    assert status == 1, output(folder)
    assert "not finite in 3 steps in a row" in output(folder)
    assert "data/docs row" in output(folder)
    assert "docs.jsonl line" in output(folder)
    assert "Traceback" not in output(folder)
    rows = metrics_rows(folder)
    assert [row["optim/skipped_steps"] for row in rows[-2:]] == [1, 2]
    assert rows[-1]["optim/grad_norm"] is None, "not finite: null, as every reader expects it"
