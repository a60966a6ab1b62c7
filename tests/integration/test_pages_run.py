"""What README and docs show runs as it is written, each page in its order, in one folder.

A tiny model stands where the quickstart leaves the real one. `NOT_RUN` names what stays out, and
why; all other commands of docs are parsed (`tests/unit/test_documented_commands.py`).
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.training_runs import msm
from tests.pages import ROOT, block_with, code_lines, section
from tests.tiny import write_tiny_llama

MODEL = "runs/quickstart/models/smollm2"
JUDGED = (
    "inspect eval megatron_msm/agentic_misalignment -T assistant=SmolLM -T samples=10 "
    "--model msm-folder/hf/sft --model-role judge=anthropic/claude-sonnet-4-6"
)
NOT_RUN = {
    JUDGED: "needs a judge's key; test_inspect.py runs the task with written verdicts",
    "msm quickstart": "unpacks the real model; test_quickstart.py runs it",
    "msm experiment run grid.yaml --local": "trains many arms; test_experiment_local.py does so",
}
MODULES = {"lm_eval": "lm_eval", "inspect": "inspect_ai._cli.main"}
"""Modules of the other tools, started by this interpreter whether or not PATH has their scripts."""


@dataclass
class Reader:
    """Somebody who types what a page shows, one command after the other, in one folder."""

    folder: Path
    ran: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _variables: dict[str, str] = field(default_factory=dict)

    def follow(self, text: str, *, programs: tuple[str, ...] = ("msm",)) -> None:
        for line in code_lines(text):
            if variable := re.fullmatch(r"([A-Z]+)=(\S+)", line):
                self._variables[variable[1]] = variable[2]
            elif line in NOT_RUN:
                self.left_out.append(line)
            elif line.split(" ")[0] in programs:
                self._type(line)

    def _type(self, line: str) -> None:
        for name, value in self._variables.items():
            line = line.replace(f"${name}", value)
        program, *arguments = shlex.split(line)
        if program == "msm":
            done = msm(*arguments, cwd=self.folder)
        else:
            command = [sys.executable, "-m", MODULES[program], *arguments]
            done = subprocess.run(
                command, cwd=self.folder, capture_output=True, text=True, check=False
            )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{line}\n{done.stderr}"
        self.ran.append(line)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    write_tiny_llama(tmp_path / MODEL)
    return Reader(tmp_path)


def readme_steps() -> str:
    return section("README.md", "Step by step")


def test_readme_as_far_as_the_datasets(reader: Reader) -> None:
    preparing, found, _ = readme_steps().partition("    msm convert import")
    assert found
    reader.follow(preparing)
    assert len(reader.ran) > 8
    assert (reader.folder / "data/chats.manifest.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_readme_step_by_step(reader: Reader) -> None:
    (reader.folder / "run.yaml").write_text(block_with(readme_steps(), "out: runs/demo"))
    reader.follow(readme_steps())
    assert len(reader.ran) > 22
    assert reader.left_out == []
    assert (reader.folder / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tutorial(reader: Reader) -> None:
    reader.follow(section("docs/tutorial.md"))
    assert len(reader.ran) > 20
    assert set(reader.left_out) == NOT_RUN.keys() - {JUDGED}
    assert (reader.folder / "report.html").is_file()


@pytest.fixture
def other_tools(tmp_path: Path) -> Reader:
    """The files that docs/exports.md speaks of."""
    text = section("docs/exports.md")
    for name in ("base", "sft"):
        write_tiny_llama(tmp_path / "hf" / name)
    (tmp_path / "facts.yaml").write_text(block_with(text, "task: facts"))
    (tmp_path / "capitals.py").write_text(block_with(text, "from inspect_ai import Task, task"))
    (fact,) = re.findall(r'`(\{"question": .*?\})`', text)
    (tmp_path / "facts.jsonl").write_text(f"{fact}\n")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Which cheese?"}\n')
    return Reader(tmp_path)


@pytest.mark.slow
def test_talking_to_an_export(other_tools: Reader) -> None:
    """`msm chat` reads lines: here there are none, so it ends at once."""
    other_tools.follow(section("docs/exports.md", "Talk to it"))
    assert len(other_tools.ran) == 2
    assert '"hf/sft": {"text"' in (other_tools.folder / "replies.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("lm_eval"), reason="needs the extra `harness`")
def test_lm_eval_on_an_export(other_tools: Reader) -> None:
    text = section("docs/exports.md", "lm-evaluation-harness")
    other_tools.follow(text, programs=("lm_eval",))
    assert len(other_tools.ran) == 1
    assert list(other_tools.folder.glob("facts/**/results_*.json"))


@pytest.mark.slow
def test_inspect_on_an_export(other_tools: Reader) -> None:
    other_tools.follow(section("docs/exports.md", "Inspect"), programs=("inspect",))
    assert len(other_tools.ran) == 1
    assert other_tools.left_out == [JUDGED]
    assert len(list(other_tools.folder.glob("logs/*.eval"))) == 1
