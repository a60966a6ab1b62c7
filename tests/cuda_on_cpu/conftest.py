"""The CUDA path on an emulated GPU; run by `bash scripts/cuda_on_cpu.sh`, and by nothing else."""

import os
from pathlib import Path

import pytest

from tests.cuda_on_cpu.runs import SIZES
from tests.integration.training_runs import prepare_run

collect_ignore_glob = [] if os.environ.get("CUDA_ON_CPU") else ["test_*.py"]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_run(tmp_path_factory.mktemp("prepared"), **SIZES)
