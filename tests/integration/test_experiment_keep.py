"""`keep: exports` with a store, as two experiments run here by `msm experiment run`."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from slurm.stages.record import read_stage
from tests.integration.test_quickstart import ITEMS
from tests.tiny import tiny_documents, write_jsonl, write_tiny_llama

GRID = """\
title: Kept
out: {out}
store: store
keep: exports
models: {{base: hf}}
specs: {{{spec}: [a.jsonl]}}
controls: {{base: false}}
run: {{runtime: {{device: cpu, dtype: fp32}}}}
midtrain:
  {{seq_length: 64, global_batch_size: 4, duration: {{steps: 3}}, optimizer: {{lr: 1e-3}}}}
evaluations:
  choice: {{task: choice, items: items.jsonl, target: homemade, dtype: fp32}}
"""


def experiment(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `msm experiment`; each of its ten stages starts a Python of its own."""
    return subprocess.run(
        [sys.executable, "-m", "megatron_msm.cli", "experiment", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_checkpoints_go_when_they_are_exported_and_come_back_when_they_are_needed(
    tmp_path: Path,
) -> None:
    write_tiny_llama(tmp_path / "hf")
    write_jsonl(tmp_path / "a.jsonl", tiny_documents(20))
    write_jsonl(tmp_path / "items.jsonl", ITEMS)
    (tmp_path / "one.yaml").write_text(GRID.format(out="one", spec="a"))
    (tmp_path / "two.yaml").write_text(GRID.format(out="two", spec="other_name"))

    first = experiment("run", "one.yaml", "--local", cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    shown = experiment("status", "one.yaml", "--stages", cwd=tmp_path)
    assert "6 stages: 6 finished" in shown.stdout
    assert shown.stdout.count("checkpoint dropped (keep: exports)") == 2
    [trained] = (tmp_path / "store" / "stages").glob("train-*")
    assert not (trained / "run" / "midtrain").exists()
    losses = (trained / "run" / "metrics.jsonl").read_text()

    second = experiment("run", "two.yaml", "--local", cwd=tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("finished before") == 5  # all but the report, which names the arm
    report = next((tmp_path / "store" / "stages").glob("report-*/facts.json")).parent
    assert read_stage(report).label == "report"
    facts = orjson.loads((report / "facts.json").read_bytes())
    assert len(facts) == 5
    assert all(fact["seconds"] > 0 for fact in facts)

    [exported] = (tmp_path / "store" / "stages").glob("export-*/hf/model.safetensors")
    weights = exported.read_bytes()
    exported.unlink()
    plan = experiment("run", "two.yaml", "--dry-run", cwd=tmp_path)
    assert "6 stages, 3 jobs to run" in plan.stdout
    again = experiment("run", "two.yaml", "--local", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    # Each line is `3/6 done export base+msm(a) ...`.
    told = [line.split() for line in again.stdout.splitlines()]
    made = [words[2] for words in told if words[1:2] == ["done"]]
    assert made == ["import", "midtrain", "export"]
    assert exported.read_bytes() == weights
    assert len((trained / "run" / "metrics.jsonl").read_text().splitlines()) == len(
        losses.splitlines()
    )
    assert not (trained / "run" / "midtrain").exists()
