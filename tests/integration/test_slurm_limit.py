"""A SLURM that lets a user have two jobs at once, as a QOS with MaxSubmitJobs=2 does.

There is no accounting here that could hold a QOS, so the controller's own submit plugin counts and
refuses, in the words and with the error number of SLURM's limit.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from slurm.jobs.attempts import read_attempts
from slurm.stages.graph import job_folder
from slurm.stages.record import is_finished
from slurm.stages.stage import OUT, Stage, in_order
from tests.integration.slurm_cluster import SlurmCluster, running_cluster
from tests.tiny import tiny_documents, write_jsonl
from tests.unit.data_prep.tiny_tokenizer import write_tokenizer
from tests.unit.slurm.stages.test_graph import outside

PLUGIN = """
function slurm_job_submit(desc, partitions, uid)
    local live = 0
    for _, job in pairs(slurm.jobs) do
        if job.job_state < 3 then live = live + 1 end  -- pending, running or suspended
    end
    if live >= 2 then
        slurm.log_user("QOSMaxSubmitJobPerUserLimit")
        return 2050  -- ESLURM_ACCOUNTING_POLICY
    end
    return slurm.SUCCESS
end
function slurm_job_modify() return slurm.SUCCESS end
return slurm.SUCCESS
"""
PROGRAM = """
import sys
import time
from pathlib import Path
from megatron_msm.errors import ConfigError
from slurm.jobs.site import load_site
from slurm.stages import queueing
from slurm.stages.stage import in_order
from tests.integration.test_slurm_limit import graph
root, queueing._POLL_S = Path(sys.argv[1]), 2.0
def tell(stage, event, detail):
    print(event, stage.label, detail, flush=True)
    time.sleep(0.4)  # the plugin's list of jobs is a second old; a QOS counts at once
try:
    queueing.queue_all(root, in_order(graph(root)), load_site(root / sys.argv[2]), tell)
except ConfigError as error:
    sys.exit(str(error))
"""


def graph(root: Path) -> Sequence[Stage]:
    """Return the ends of five chains of four stages, and of one whose first stage fails."""
    return [_chain(root, str(number), 4) for number in range(5)] + [_chain(root, "bad", 2)]


def _chain(root: Path, name: str, length: int) -> Stage:
    documents = root / f"{name}.jsonl"
    arguments = ("prep", "docs", str(documents), "--tokenizer", str(root / "hf"))
    stage = Stage(
        kind="prep",
        label=f"{name}.0",
        arguments=(*arguments, "--out", f"{OUT}/data"),
        makes=("data",),
        reads=(outside(documents), outside(root / "hf" / "tokenizer.json")),
    )
    for place in range(1, length):
        arguments = ("prep", "merge", stage.output("data"), "--out", f"{OUT}/data")
        stage = Stage(
            kind="prep",
            label=f"{name}.{place}",
            arguments=arguments,
            makes=("data",),
            needs=(stage,),
        )
    return stage


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[SlurmCluster]:
    with running_cluster(tmp_path / "cluster", submit_plugin=PLUGIN) as cluster:
        yield cluster


@pytest.mark.slow
def test_twenty_stages_go_through_a_limit_of_two_jobs_and_a_killed_client(
    limited: SlurmCluster, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path / "hf")
    for number in range(5):
        write_jsonl(tmp_path / f"{number}.jsonl", tiny_documents(3 + number))
    write_jsonl(tmp_path / "bad.jsonl", [{"text": ""}])
    (tmp_path / "unlimited.yaml").write_text("{}\n")
    (tmp_path / "site.yaml").write_text("max_queued: 2\n")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]

    refused = subprocess.run(
        [*command, "unlimited.yaml"], capture_output=True, text=True, check=False, timeout=100
    )
    assert refused.returncode == 1
    assert "QOSMaxSubmitJobPerUserLimit" in refused.stderr
    assert "`max_queued` in the site file" in refused.stderr
    assert 2 <= refused.stdout.count("queued ") < 20
    limited.wait_until_empty()

    first = subprocess.Popen([*command, "site.yaml"], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    seen = 0
    while seen < 3:
        seen += first.stdout.readline().startswith("queued ")
    first.kill()
    first.wait()
    log = tmp_path / "second.log"
    with log.open("wb") as out:
        second = subprocess.Popen([*command, "site.yaml"], stdout=out, stderr=out)
    most = 0
    while second.poll() is None:
        most = max(most, len(limited.run("squeue", "-h").splitlines()))
        time.sleep(0.5)
    assert second.returncode == 0, log.read_text()
    assert most == 2
    assert "keep this running" in log.read_text()
    assert "not run bad.1" in log.read_text()

    limited.wait_until_empty()  # the last jobs are queued, and may still run
    for stage in in_order(graph(tmp_path)):
        is_bad = stage.label.startswith("bad")
        assert is_finished(tmp_path / stage.folder, stage.identity) != is_bad, stage.label
        attempts = read_attempts(job_folder(tmp_path, stage.folder))
        if not is_bad:
            assert [attempt.status for attempt in attempts] == [0], stage.label
