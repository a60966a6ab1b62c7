"""A folder `evals` in the working directory breaks nothing, nor is it run unnoticed."""

import subprocess
import sys
from pathlib import Path

import pytest

from megatron_msm.own_packages import PACKAGES, python_module

MSM = Path(sys.executable).with_name("msm")


@pytest.fixture
def shadowing(tmp_path: Path) -> Path:
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "__init__.py").write_text("raise SystemExit(9)")
    (tmp_path / "slurm.py").write_text("raise SystemExit(9)")
    return tmp_path


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", [[str(MSM)], python_module("megatron_msm")], ids=["msm", "-P"])
def test_the_working_directory_is_not_searched(shadowing: Path, command: list[str]) -> None:
    done = run(shadowing, *command, "eval", "power", "--sd-items", "1", "--items", "9")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ([sys.executable, "-m", "megatron_msm"], {}),
        ([str(MSM)], {"PYTHONPATH": "."}),
    ],
    ids=["python -m", "PYTHONPATH"],
)
def test_what_stands_in_the_place_of_a_package_is_named(
    shadowing: Path, command: list[str], environment: dict[str, str]
) -> None:
    done = run(shadowing, *command, "--help", **environment)
    assert done.returncode == 2
    [message] = done.stderr.splitlines()
    assert message.startswith(f"error: {shadowing / 'slurm.py'}: Python finds this in the place")


def test_every_package_beside_the_trainer_is_checked() -> None:
    root = Path(__file__).parents[2]
    found = {path.parent.name for path in root.glob("*/__init__.py")}
    assert found - {"megatron_msm", "tests", "benchmarks", "examples"} == set(PACKAGES)
