"""A lock that names its holder: whole at every moment, and taken over by what SLURM says."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import orjson
import pytest

from megatron_msm.formats import lock_file
from megatron_msm.formats.lock_file import Holder, held, this_process

CONTEXT = multiprocessing.get_context("fork")


class StillHeldError(Exception):
    """What a test does with a lock that is held."""


def refuse(holder: Holder) -> None:
    raise StillHeldError(str(holder))


def take_again_and_again(path: Path) -> None:
    while True:
        with held(path, refuse):
            time.sleep(0.001)


def test_a_process_killed_at_any_moment_leaves_a_lock_that_the_next_one_takes(
    tmp_path: Path,
) -> None:
    path = tmp_path / ".lock"
    was_left = 0
    for number in range(40):
        taker = CONTEXT.Process(target=take_again_and_again, args=(path,))
        taker.start()
        while not list(tmp_path.iterdir()):
            time.sleep(0.001)
        time.sleep(0.0007 * number)
        taker.kill()
        taker.join()
        was_left += path.exists()
        with held(path, refuse):
            assert Holder.model_validate(orjson.loads(path.read_bytes())).pid == os.getpid()
    assert was_left > 0, "no kill was met by a held lock"


SCONTROL = """#!/bin/sh
case "$*" in
  "show config") echo "ClusterName             = here" ;;
  "show job --oneliner 5") echo "JobId=5 JobName=a JobState=COMPLETED Reason=None" ;;
  "show job --oneliner 6") echo "JobId=6 JobName=a JobState=RUNNING Reason=None" ;;
  "show job --oneliner 7") echo "JobId=7 JobName=a JobState=COMPLETING Reason=None" ;;
  *) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1 ;;
esac
"""
SACCT = """#!/bin/sh
for last; do :; done
case "$last" in
  8) echo "8|CANCELLED by 0|n1" ;;
  9) echo "9|NODE_FAIL|n1" ;;
esac
"""
# (job, cluster) of a holder on another machine: is the lock taken over
CASES = {
    "ended, says the controller": (("5", "here"), True),
    "runs": (("6", "here"), False),
    "is about to end": (("7", "here"), False),
    "ended, say the accounts": (("8", "here"), True),
    "its node is gone": (("9", "here"), True),
    "SLURM knows nothing": (("10", "here"), False),
    "another cluster's job": (("5", "there"), False),
    "no cluster is known": (("5", None), False),
    "no job": ((None, None), False),
}


@pytest.fixture
def _slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for SLURM's commands, and none of this machine's."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("scontrol", SCONTROL), ("sacct", SACCT)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    found = shutil.which("sh")
    assert found is not None
    (tools / "sh").symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    for name in ("SLURM_JOB_ID", "SLURM_CLUSTER_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_slurm")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_job_on_another_machine_loses_its_lock_when_slurm_says_that_it_has_ended(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (job, cluster), is_taken_over = CASES[case]
    changes = {"host": "node7", "machine": "another", "job": job, "cluster": cluster}
    path = tmp_path / ".lock"
    path.write_bytes(orjson.dumps(this_process().model_copy(update=changes).model_dump()))
    if is_taken_over:
        with held(path, refuse):
            pass
        assert f"taken over from process {os.getpid()} of SLURM job" in capsys.readouterr().err
    else:
        with pytest.raises(StillHeldError, match="on node7, since"), held(path, refuse):
            pass
        assert path.exists()


@pytest.mark.usefixtures("_slurm")
def test_who_waits_takes_the_lock_when_the_job_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_file, "_SLURM_IS_ASKED_EVERY_S", 0.0)
    path = tmp_path / ".lock"
    changes = {"host": "node7", "machine": "another", "job": "6", "cluster": "here"}
    path.write_bytes(orjson.dumps(this_process().model_copy(update=changes).model_dump()))
    seen: list[str] = []

    def wait(holder: Holder) -> None:
        seen.append(holder.host)
        scontrol = tmp_path / "tools" / "scontrol"
        scontrol.write_text(scontrol.read_text().replace("RUNNING", "FAILED"))

    with held(path, wait):
        pass
    assert seen == ["node7"]
