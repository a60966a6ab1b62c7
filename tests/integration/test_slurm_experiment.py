"""`msm experiment` on a real SLURM: a graph of jobs, arrays, failures, and two clients at once."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.slurm_cluster import SlurmCluster, wait_for
from tests.integration.test_quickstart import ITEMS
from tests.integration.training_runs import msm
from tests.tiny import tiny_documents, write_jsonl, write_tiny_llama

GRID = """\
title: Study
out: out
models: {base: hf}
specs: {good: [good.jsonl], bad: [bad.jsonl]}
shards: 3
run: {runtime: {device: cpu, dtype: fp32}}
midtrain:
  {seq_length: 64, global_batch_size: 4, duration: {steps: 3}, optimizer: {lr: 1e-3}}
"""
SITE = """\
defaults: {ranks_per_node: 2, cpus_per_task: 1, time_min: 60}
stages: {prep: {time_min: 10}}
max_running: 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_llama(tmp_path / "hf")
    write_jsonl(tmp_path / "good.jsonl", tiny_documents(20))
    write_jsonl(tmp_path / "bad.jsonl", [{"text": ""}])
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "site.yaml").write_text(SITE)
    return tmp_path


def statuses(folder: Path) -> dict[str, dict[str, Any]]:
    done = msm("experiment", "status", "grid.yaml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return {stage["label"]: stage for stage in orjson.loads(done.stdout)["stages"]}


def test_graph_on_slurm_with_a_failing_stage_and_two_clients(
    cluster: SlurmCluster, folder: Path
) -> None:
    command = [sys.executable, "-m", "megatron_msm.cli", "experiment", "run", "grid.yaml"]
    clients = [
        subprocess.Popen(
            [*command, "--site", "site.yaml"], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = "".join(client.communicate(timeout=300)[0] for client in clients)
    assert [client.returncode for client in clients] == [0, 0]
    num_stages = len(statuses(folder))
    queued = [line for line in outputs.splitlines() if line.startswith("queued")]
    assert len(queued) == num_stages
    assert sum("prep docs good" in line and "_" in line for line in queued) == 3  # array elements

    def has_ended() -> bool:
        return cluster.run("squeue", "-h") == ""

    wait_for(has_ended, 500)
    ended = statuses(folder)
    states = {label: stage["state"] for label, stage in ended.items()}
    assert states["prep docs bad 0/3"] == "failed"
    assert "bad.jsonl:1" in ended["prep docs bad 0/3"]["detail"]
    assert states["midtrain bad #1234"] == "blocked"
    assert {s for label, s in states.items() if "bad" not in label} == {"finished"}
    assert ended["midtrain good #1234"]["step"] == 3

    table = msm("experiment", "status", "grid.yaml", "--stages", cwd=folder, COLUMNS="160")
    for expected in ("midtrain good", "3/3", "configuration", "blocked", "logs in"):
        assert expected in table.stdout
    short = msm("experiment", "status", "grid.yaml", cwd=folder, COLUMNS="160")
    assert "midtrain good" not in short.stdout
    assert [line.split()[:3] for line in short.stdout.splitlines() if line.startswith("base+")] == [
        ["base+msm(good)#1234", "finished", "6/6"],
        ["base+msm(bad)#1234", "failed", "3/6"],
    ]
    alone = msm("experiment", "status", "grid.yaml", "--arm", "base+msm(good)", cwd=folder)
    assert "base+msm(bad)" not in alone.stdout
    wrong = msm("experiment", "status", "grid.yaml", "--arm", "x", cwd=folder)
    assert wrong.returncode == 2
    assert "base+msm(good)" in wrong.stderr

    write_jsonl(folder / "bad.jsonl", tiny_documents(9))
    shown = msm("experiment", "run", "grid.yaml", "--site", "site.yaml", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    again = [line.split()[:2] for line in shown.stdout.splitlines()]
    assert ["finished", "before"] in again
    assert not any("good" in line for line in shown.stdout.splitlines() if "queued" in line)
    stopped = msm("experiment", "cancel", "grid.yaml", cwd=folder)
    assert stopped.stdout.count("cancelled") > 0
    wait_for(has_ended, 200)
    states = {label: (s["state"], s["detail"]) for label, s in statuses(folder).items()}
    assert {state for state, _ in states.values()} == {"finished", "stopped", "blocked"}, states


@pytest.mark.slow
def test_a_corpus_below_a_threshold_is_not_trained_on_and_its_own_arm_alone_is_held_up(
    cluster: SlurmCluster, folder: Path
) -> None:
    """Both corpora cite no clause; one spec's gate asks for that, the other's for the contrary."""
    write_jsonl(folder / "bad.jsonl", tiny_documents(9))
    gates = "health: {good: {require: [with_clauses<=0]}, bad: {require: [with_clauses>=0.5]}}\n"
    (folder / "grid.yaml").write_text(GRID.replace("shards: 3\n", gates))
    done = msm("experiment", "run", "grid.yaml", "--site", "site.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: cluster.run("squeue", "-h") == "", 500)
    ended = statuses(folder)
    states = {label: stage["state"] for label, stage in ended.items()}
    assert states["health bad"] == "failed"
    assert "not met: with_clauses>=0.5 (bad: 0" in ended["health bad"]["detail"]
    assert states["midtrain bad #1234"] == "blocked"
    assert ended["midtrain bad #1234"]["detail"] == "needs health bad"
    assert {s for label, s in states.items() if "bad" not in label} == {"finished"}


@pytest.mark.slow
def test_cancelling_one_grid_file_of_a_folder_leaves_what_another_needs(
    cluster: SlurmCluster, folder: Path
) -> None:
    both = GRID.replace("shards: 3\n", "controls: {base: false}\n")
    both = both.replace("bad: [bad.jsonl]", "good2: [bad.jsonl]")
    write_jsonl(folder / "bad.jsonl", tiny_documents(9))
    (folder / "grid.yaml").write_text(both)
    (folder / "other.yaml").write_text(both.replace(", good2: [bad.jsonl]", ""))
    for name in ("grid.yaml", "other.yaml"):
        done = msm("experiment", "run", name, "--site", "site.yaml", cwd=folder)
        assert done.returncode == 0, done.stderr
    assert done.stdout.count("waits already") + done.stdout.count("finished before") == 3
    stopped = msm("experiment", "cancel", "grid.yaml", cwd=folder)
    assert stopped.returncode == 0, stopped.stderr
    assert "cancelled" in stopped.stdout
    assert "midtrain good #1234: Study needs it" in stopped.stdout
    wait_for(lambda: cluster.run("squeue", "-h") == "", 300)
    shown = msm("experiment", "status", "other.yaml", "--json", cwd=folder)
    assert {s["state"] for s in orjson.loads(shown.stdout)["stages"]} == {"finished"}
    states = {label: stage["state"] for label, stage in statuses(folder).items()}
    assert states["midtrain good #1234"] == "finished"
    assert states["midtrain good2 #1234"] != "finished"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_client_that_queues_under_a_limit_leaves_out_an_arm_that_is_cancelled_meanwhile(
    cluster: SlurmCluster, folder: Path
) -> None:
    write_jsonl(folder / "bad.jsonl", tiny_documents(9))
    base = "controls: {base: false}\n"
    (folder / "grid.yaml").write_text(GRID.replace("shards: 3\n", base))
    (folder / "site.yaml").write_text(f"{SITE}max_queued: 1\n")
    command = [sys.executable, "-m", "megatron_msm.cli", "experiment", "run", "grid.yaml"]
    log = folder / "client.log"
    with log.open("wb") as out:
        client = subprocess.Popen(
            [*command, "--site", "site.yaml"], cwd=folder, stdout=out, stderr=out
        )
    wait_for(lambda: "queued " in log.read_text(), 200)
    stopped = msm("experiment", "cancel", "grid.yaml", "--arm", "base+msm(bad)", cwd=folder)
    assert stopped.returncode == 0, stopped.stderr
    assert client.wait(900) == 0, log.read_text()
    wait_for(lambda: cluster.run("squeue", "-h") == "", 300)
    said = log.read_text()
    for label in ("prep docs bad", "midtrain bad #1234"):
        assert f"cancelled       {label}" in said
        assert f"queued          {label}" not in said
    assert "failed" not in said
    states = {label: stage["state"] for label, stage in statuses(folder).items()}
    assert states == {
        "import base": "finished",
        "prep docs good": "finished",
        "midtrain good #1234": "finished",
        "prep docs bad": "not started",
        "midtrain bad #1234": "not started",
    }

    again = msm(*command[3:], "--site", "site.yaml", "--arm", "base+msm(bad)", cwd=folder)
    assert again.returncode == 0, again.stderr
    wait_for(lambda: cluster.run("squeue", "-h") == "", 300)
    ended = statuses(folder)
    assert {stage["state"] for stage in ended.values()} == {"finished"}
    assert all(stage["seconds"] > 0 for stage in ended.values())
    shown = msm("experiment", "status", "grid.yaml", cwd=folder, COLUMNS="160")
    assert "5 stages: 5 finished; GPU hours: 0.00 used, 0.00 left to train" in shown.stdout


@pytest.mark.slow
def test_export_and_evaluations_of_an_arm_are_one_job(cluster: SlurmCluster, folder: Path) -> None:
    write_jsonl(folder / "items.jsonl", ITEMS)
    choice = "{task: choice, items: items.jsonl, target: homemade, dtype: fp32}"
    grid = GRID.replace("shards: 3\n", "controls: {base: false}\n").replace(
        ", bad: [bad.jsonl]", ""
    )
    (folder / "grid.yaml").write_text(f"{grid}evaluations: {{one: {choice}, two: {choice}}}\n")
    (folder / "site.yaml").write_text(f"{SITE}join_evaluations: true\n")
    done = msm("experiment", "run", "grid.yaml", "--site", "site.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: cluster.run("squeue", "-h") == "", 500)
    ended = statuses(folder)
    assert {stage["state"] for stage in ended.values()} == {"finished"}, ended
    jobs = {label.split()[0]: stage["job_id"] for label, stage in ended.items()}
    assert jobs["export"] == jobs["eval"]
    assert len({stage["job_id"] for stage in ended.values()}) == 5
