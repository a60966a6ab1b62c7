"""The `msm` command as a whole: it starts at once, lists its commands, and needs nothing heavy."""

import inspect
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer

from megatron_msm.lazy_commands import help_in_source

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


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_list_of_commands_says_what_the_commands_help_says(command: str) -> None:
    [entry] = entry_points(group="msm.commands", name=command)
    loaded = entry.load()
    said = loaded.info.help if isinstance(loaded, typer.Typer) else loaded.__doc__
    assert said
    assert help_in_source(entry) == inspect.cleandoc(said)


def test_help_of_a_command_comes_without_what_its_work_needs() -> None:
    asked = [
        *([command, "--help"] for command in sorted(COMMANDS)),
        *(["convert", command, "--help"] for command in ("import", "export", "verify")),
        *(["eval", command, "--help"] for command in ("choice", "run", "report", "power")),
    ]
    program = (
        "import sys; from typer.testing import CliRunner; from megatron_msm.cli import build_app; "
        f"codes = [CliRunner().invoke(build_app(), line).exit_code for line in {asked!r}]; "
        f"print(codes, sorted({HEAVY - {'pyarrow'}!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{[0] * len(asked)} []"


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['scipy'] = None; sys.modules['submitit'] = None; "
        "sys.argv = ['msm', *sys.argv[1:]]; from megatron_msm.cli import main; main()"
    )
    for arguments, extra in (
        (["eval", "power", "--sd-items", "1", "--items", "9"], "evals"),
        (["submit", "run.yaml"], "slurm"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 2
        assert f"pip install 'megatron-msm[{extra}]'" in done.stderr
        assert "Traceback" not in done.stderr


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
