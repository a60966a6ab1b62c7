"""What `msm init` says to type next runs as it stands, on a tiny model in place of the real one."""

import re
import shlex
from pathlib import Path

import pytest

from tests.integration.training_runs import msm
from tests.tiny import write_tiny_llama

MODEL = "runs/quickstart/models/smollm2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starting")
    write_tiny_llama(folder / MODEL)
    return folder


@pytest.mark.parametrize(
    ("kind", "count"), [("run", 4), ("suite", 2), ("generate", 4), ("site", 1)]
)
def test_what_is_said_next_runs(kind: str, count: int, folder: Path) -> None:
    """A site's last needs a cluster; a grid's plan unpacks the packaged model, which is slow."""
    done = msm("init", kind, cwd=folder)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^(?:next:)? +(msm .*)$", done.stdout, flags=re.MULTILINE)
    assert len(commands) >= count
    for command in commands[:count]:
        ran = msm(*shlex.split(command)[1:], cwd=folder)
        assert ran.returncode == 0, f"{command}\n{ran.stderr}"
