"""A grid's evaluation that names a server, as a job of a real SLURM: the server goes with the job.

The node has no cgroups, so a process whose parent is gone is out of SLURM's sight: what ends the
server here is ours alone.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from megatron_msm.formats.eval_result import load_eval_result
from tests.integration.slurm_cluster import SlurmCluster, wait_for
from tests.integration.training_runs import msm
from tests.unit.evals.tasks.sampling.test_own_server import SERVER, children, is_running
from tests.unit.evals.tiny_models import save_tiny_model
from tests.unit.evals.written import write_judge, write_lines

GRID = """\
title: Served
out: out
models: {base: hf}
specs: {none: [docs.jsonl]}
exclude: [{spec: none}]
midtrain:
  {seq_length: 64, global_batch_size: 4, duration: {steps: 3}, optimizer: {lr: 1e-3}}
evaluations:
  qa: {task: open_qa, questions: questions.jsonl, spec: spec.md, judge: judge.yaml,
       samples: SAMPLES, max_tokens: 24, concurrency: 2, server: server.yaml}
"""
TRANSFORMERS = [
    *(sys.executable, "-c", "from transformers.cli.transformers import main; main()"),
    *("serve", "{model}", "--port", "{port}", "--device", "cpu", "--dtype", "float32"),
]
"""The program `transformers`, wherever it is installed."""


def write_grid(folder: Path, server: Mapping[str, object], *, samples: int) -> None:
    save_tiny_model(folder / "hf")
    write_lines(folder / "docs.jsonl", [{"text": "no part of this"}])
    questions = [
        {"id": name, "category": "x", "question": f"What of {name}?"} for name in ("ends", "tea")
    ]
    write_lines(folder / "questions.jsonl", questions)
    (folder / "spec.md").write_text("It is helpful.")
    write_judge(folder, [{"reply": "<points>6</points>"}])
    (folder / "server.yaml").write_text(json.dumps(server))
    (folder / "grid.yaml").write_text(GRID.replace("SAMPLES", str(samples)))
    (folder / "site.yaml").write_text("defaults: {cpus_per_task: 1, time_min: 60}\n")


def submit(folder: Path) -> tuple[str, Path]:
    """Queue the grid; return the evaluation's job and its folder."""
    done = msm("experiment", "run", "grid.yaml", "--site", "site.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    (stage,) = (folder / "out" / "stages").glob("eval-*")
    submitted = json.loads((stage / "job" / "submitted.json").read_text())
    return str(submitted["job_id"]), stage


def serving(folder: Path) -> list[int]:
    """Return the processes that have the model's folder in their command line."""
    model = str(folder / "hf").encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if model in command and is_running(int(process.name)):
            found.append(int(process.name))
    return found


def cancel(cluster: SlurmCluster, job_id: str) -> None:
    cluster.run("scancel", job_id)
    wait_for(lambda: cluster.run("squeue", "-h", "-j", job_id, "-t", "all", "-o%t") == "CA", 120)


def test_a_server_that_will_not_end_goes_with_a_cancelled_job(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    """It refuses the signal to end, as does nothing else, and has started a process of its own."""
    command = [sys.executable, SERVER, "{model}", "{port}", "deaf"]
    write_grid(tmp_path, {"command": command, "stop_timeout_s": 2}, samples=1)
    job_id, stage = submit(tmp_path)
    log = stage / "logs" / "server.log"
    wait_for(lambda: log.exists() and bool(children(log)), 300)
    (child,) = children(log)
    assert is_running(child)
    assert serving(tmp_path)
    cancel(cluster, job_id)
    wait_for(lambda: not serving(tmp_path) and not is_running(child), 20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_transformers_serve_is_part_of_the_job(cluster: SlurmCluster, tmp_path: Path) -> None:
    server = {"command": TRANSFORMERS, "start_timeout_s": 600}
    write_grid(tmp_path, server, samples=2)
    job_id, stage = submit(tmp_path)
    assert cluster.wait_state(job_id, "COMPLETED", "FAILED", seconds=900) == "COMPLETED"
    assert serving(tmp_path) == []
    result = load_eval_result(stage / "qa.json")
    assert [row.numbers["points"] for row in result.rows] == [6.0] * 4
    assert all(str(row.details["reply"]).strip() for row in result.rows)
    assert str(result.protocol.settings["asked"]).startswith("server: ")
    assert "POST /v1/chat/completions" in (stage / "logs" / "server.log").read_text()

    # The same with more replies than can be written before it is cancelled.
    other = tmp_path / "other"
    other.mkdir()
    write_grid(other, server, samples=5000)
    job_id, stage = submit(other)
    log = stage / "logs" / "server.log"
    wait_for(lambda: log.exists() and log.read_text().count("chat/completions") > 3, 900)
    assert serving(other)
    cancel(cluster, job_id)
    wait_for(lambda: serving(other) == [], 20)
