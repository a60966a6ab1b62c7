"""What is made once for all integration tests: a run, its result, a SLURM."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.slurm_cluster import SlurmCluster, running_cluster
from tests.integration.training_runs import msm, prepare_run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `msm train run.yaml` can run."""
    return prepare_run(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run after training that nothing interrupted."""
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("finished") / "run")
    done = msm("train", "run.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run_folder(prepared: Path, tmp_path: Path) -> Path:
    """The test's own copy."""
    return shutil.copytree(prepared, tmp_path / "run")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Three nodes of a real SLURM, or a skip with the reason."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
