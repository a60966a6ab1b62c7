"""The `msm` command as a whole: it starts at once, lists its commands, and needs nothing heavy."""

import subprocess
import sys

import pytest

COMMANDS = {
    "plan",
    "convert",
    "doctor",
    "eval",
    "experiment",
    "logs",
    "prep",
    "quickstart",
    "submit",
    "train",
}
HEAVY = {"torch", "transformers", "megatron.core", "scipy", "pyarrow", "matplotlib"}


def test_help_lists_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "megatron_msm.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("│ ")}
    assert listed >= COMMANDS


def test_building_the_command_line_imports_nothing_heavy() -> None:
    program = (
        "import sys; from megatron_msm.cli import build_app; build_app(); "
        "import megatron_msm.config.run, megatron_msm.config.load; "
        "import megatron_msm.train.checkpoints.resume; "
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["nonsense"], ["train"], ["prep", "docs"]], ids=str)
def test_wrong_usage_ends_with_status_2(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "megatron_msm.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
