"""Training over two nodes of a real SLURM: `msm submit`, and what interrupts it."""

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from megatron_msm.config.load import read_yaml
from slurm.jobs.attempts import read_attempts
from tests.integration.slurm_cluster import SlurmCluster, wait_for
from tests.integration.training_runs import assert_same_result, msm, prepare_run

LAYOUT = ("parallel.tensor=2", "parallel.data=2")
SITE = """\
defaults: {ranks_per_node: 2, cpus_per_task: 1, time_min: 60}
signal_delay_s: 30
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, cluster: SlurmCluster) -> Path:
    """A tiny model whose heads two tensor ranks can share, its data, and a site file."""
    folder = prepare_run(
        tmp_path_factory.mktemp("prepared"), num_attention_heads=4, num_key_value_heads=2
    )
    (folder / "site.yaml").write_text(SITE)
    return folder


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on this machine without SLURM, never interrupted."""
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("finished") / "run")
    done = msm("train", "run.yaml", *LAYOUT, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def submit(folder: Path, run_file: str = "run.yaml") -> str:
    done = msm("submit", run_file, *LAYOUT, "--site", "site.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("job ")[1].split(",")[0]


def wait_step(folder: Path, step: int) -> None:
    metrics = folder / "train" / "metrics.jsonl"
    wanted = f'"step":{step},'.encode()
    wait_for(lambda: metrics.exists() and wanted in metrics.read_bytes(), 300)


def test_preempted_over_two_nodes_ends_bit_for_bit_as_never_interrupted(
    prepared: Path, finished: Path, cluster: SlurmCluster, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    job_id = submit(folder)
    second = msm("submit", "run.yaml", *LAYOUT, "--site", "site.yaml", cwd=folder)
    assert second.returncode == 2
    assert f"job {job_id} of this run waits or runs already" in second.stderr

    wait_step(folder, 3)
    cluster.run("sbatch", "-p", "high", "-N3", "--exclusive", "-o", "/dev/null", "--wrap", "true")
    cluster.wait_restart(job_id)

    assert cluster.wait_state(job_id, "COMPLETED", "FAILED", seconds=400) == "COMPLETED"
    assert cluster.field(job_id, "NumNodes") == "2"
    first, last = read_attempts(folder / "train" / "slurm")
    assert (first.kind, first.status, last.kind) == ("preempted", 75, None)
    assert_same_result(folder, finished)

    shown = msm("logs", job_id, cwd=folder)
    assert [line for line in shown.stdout.splitlines() if line.startswith("train/")] == [
        f"train/slurm/logs/{job_id}_{rank}_log.out" for rank in range(4)
    ]
    again = submit(folder)
    assert cluster.wait_state(again, "COMPLETED", "FAILED") == "COMPLETED"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["requeue", "node-down"])
def test_interrupted_ends_bit_for_bit_as_never_interrupted(
    prepared: Path, finished: Path, cluster: SlurmCluster, tmp_path: Path, how: str
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    job_id = submit(folder)
    wait_step(folder, 2)
    node = cluster.field(job_id, "BatchHost")
    if how == "requeue":
        cluster.run("scontrol", "requeue", job_id)
    else:
        cluster.crash_node(node)
    try:
        cluster.wait_restart(job_id)
        assert cluster.wait_state(job_id, "COMPLETED", "FAILED", seconds=400) == "COMPLETED"
    finally:
        if how == "node-down":
            cluster.start_node(node)
    assert_same_result(folder, finished)


@pytest.mark.slow
def test_after_starts_a_run_on_the_checkpoint_that_another_is_still_to_write(
    prepared: Path, cluster: SlurmCluster, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    content: dict[str, Any] = dict(read_yaml(folder / "run.yaml"))
    for name, out, start, phase in (
        ("first.yaml", "one", "base", content["phases"][0]),
        ("second.yaml", "two", "one/midtrain", content["phases"][1]),
    ):
        one = {**content, "out": out, "model": {"checkpoint": start}, "phases": [phase]}
        (folder / name).write_bytes(orjson.dumps(one))  # JSON is YAML
    first = submit(folder, "first.yaml")
    early = msm("submit", "second.yaml", *LAYOUT, "--site", "site.yaml", cwd=folder)
    assert early.returncode == 2, "its checkpoint is not there yet"
    done = msm(
        *("submit", "second.yaml", *LAYOUT, "--site", "site.yaml", "--after", f"{first}:ok"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert f"not checked before job {first} has ended" in done.stdout
    second = done.stdout.split("submitted  job ")[1].split(",")[0]
    waits = msm("logs", second, "--folder", "two", cwd=folder)
    assert waits.stdout.startswith(f"job {second}  PENDING  Dependency")
    assert msm("logs", "two", cwd=folder).stdout.startswith(f"job {second}  PENDING  Dependency")
    assert cluster.wait_state(second, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
    assert cluster.field(first, "JobState") == "COMPLETED"
    assert (folder / "two" / "sft").is_dir()
    for wrong in ("12x", "12:fine", "1;2"):
        refused = msm("submit", "first.yaml", "--after", wrong, cwd=folder)
        assert refused.returncode == 2
        assert f"--after {wrong}: write the number of a job" in refused.stderr


def test_bad_configuration_is_found_before_it_is_queued(
    prepared: Path, cluster: SlurmCluster
) -> None:
    for override, expected in (("parallel.tensor=3", "parallel.tensor"), ("x=1", "x: unknown key")):
        done = msm("submit", "run.yaml", override, "--site", "site.yaml", cwd=prepared)
        assert done.returncode == 2
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
    assert not (prepared / "train").exists()
