"""The `msm` command as a whole: it starts at once, lists its commands, and needs nothing heavy."""

import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from megatron_msm.cli import build_app
from megatron_msm.lazy_commands import help_in_source
from megatron_msm.runtime.doctor import doctor

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


def all_commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and group with the words that call it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [
        (("msm",), typer.main.get_command(build_app())),
    ]
    while waiting:
        words, command = waiting.pop()
        yield words, command
        for name, child in getattr(command, "commands", {}).items():
            loaded = child.entry.load()
            app = loaded
            if not isinstance(loaded, typer.Typer):
                app = typer.Typer(add_completion=False)
                app.command()(loaded)
            waiting.append(((*words, name), typer.main.get_command(app)))


EVERY_COMMAND = list(all_commands())


def help_of(*words: str) -> str:
    asked = CliRunner().invoke(build_app(), [*words[1:], "-h"], env={"COLUMNS": "80"})
    assert asked.exit_code == 0, asked.output
    return asked.output


def test_every_command_is_looked_at() -> None:
    assert len(EVERY_COMMAND) > 40


@pytest.mark.parametrize(
    ("words", "command"), EVERY_COMMAND, ids=[" ".join(words) for words, _ in EVERY_COMMAND]
)
def test_help_has_an_example_that_the_command_takes(words: tuple[str, ...], command: Any) -> None:
    examples = re.findall(r"^ Example: (msm .*?) *$", help_of(*words), flags=re.MULTILINE)
    assert len(examples) == 1, "one line of its own, as it is typed"
    typed = tuple(shlex.split(examples[0]))
    assert typed[: len(words)] == words or words[-1] == "health"
    if not hasattr(command, "commands"):
        command.make_context("msm", list(typed[len(words) :]))


@pytest.mark.parametrize(
    ("words", "command"), EVERY_COMMAND, ids=[" ".join(words) for words, _ in EVERY_COMMAND]
)
def test_values_are_named_in_capitals(words: tuple[str, ...], command: Any) -> None:
    for param in command.params:
        is_flag = getattr(param, "is_flag", False)
        if not (is_flag or param.hidden or param.type_descriptor.is_choice):
            assert re.match(r"[A-Z\[]", param.metavar or ""), param.name
    shown = help_of(*words)
    assert "<bool>" not in shown
    assert "<list" not in shown
    assert "<path>" not in shown


def test_version_and_module_and_short_help() -> None:
    for started in (["-m", "megatron_msm"], ["-m", "megatron_msm.cli"]):
        done = subprocess.run(
            [sys.executable, *started, "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"msm {version('megatron-msm')}\n"
    assert "Exit status: 0 done" in help_of("msm")


def test_completion_knows_the_commands_of_a_group() -> None:
    for line, wanted in (
        ("msm pre", "prep"),
        ("msm prep do", "docs"),
        ("msm train --pl", "--plan"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "megatron_msm"],
            env={
                "_MSM_COMPLETE": "complete_bash",
                "COMP_WORDS": line,
                "COMP_CWORD": str(len(line.split()) - 1),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert wanted in done.stdout, done


def test_doctor_tells_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    doctor()
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop() == "next: msm quickstart"
    doctor(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [f"{name:<20} {state}" for name, state in found.items()] == lines


def test_ctrl_c_ends_with_the_status_that_help_names(tmp_path: Path) -> None:
    never_written = tmp_path / "spec.md"
    os.mkfifo(never_written)
    program = "import sys; from megatron_msm.cli import main; sys.argv[0] = 'msm'; main()"
    running = subprocess.Popen(
        [sys.executable, "-c", program, "generate", "spec", str(never_written)],
        stderr=subprocess.PIPE,
        text=True,
    )
    # Opening it for writing waits until the command has opened it for reading.
    with never_written.open("w"):
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert running.returncode == 130
    assert said == "stopped by Ctrl-C\n"
    assert "130 stopped by Ctrl-C" in " ".join(help_of("msm").split())
