"""What a visitor expects beside the code: each of these files does what it says it does."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
TOOLS = (ROOT / "scripts/test.sh").read_text().splitlines()
"""The lines of the one script that CI and people run."""


def test_the_readme_is_short_and_begins_with_what_it_is_and_a_picture() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 200
    heads = [number for number, line in enumerate(lines) if line.startswith("## ")]
    (picture,) = [number for number, line in enumerate(lines) if line.startswith("![")]
    assert picture < heads[0]
    assert lines[heads[0]] == "## Two commands"
    path = ROOT / lines[picture].split("(")[1].split(")")[0]
    header = path.read_bytes()[:24]
    assert header[1:4] == b"PNG"
    width, height = struct.unpack(">II", header[16:])
    assert 800 <= width <= 1400
    assert height < width
    assert path.stat().st_size < 150_000


def test_the_forge_runs_what_ci_runs() -> None:
    workflow = YAML(typ="safe").load((ROOT / ".github/workflows/test.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert steps[-1] == {"run": "bash .ci/run"}
    assert (ROOT / ".ci/run").read_text().splitlines()[-1].endswith('/../scripts/test.sh"')
    assert workflow["permissions"] == {"contents": "read"}


def test_hooks_run_the_same_tools_and_pin_nothing() -> None:
    content = YAML(typ="safe").load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = content["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert len(entries) == 4
    assert [entry for entry in entries if entry not in TOOLS] == []
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert citation["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    (paper,) = citation["references"]
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2605.02087"}]


def test_the_image_copies_what_there_is_and_keeps_nvidias_builds() -> None:
    text = (ROOT / "Dockerfile").read_text()
    code = [line for line in text.replace("\\\n", "").splitlines() if line[:1] not in ("", "#")]
    assert code[0].startswith("FROM nvcr.io/nvidia/pytorch:")
    copied = [name for line in code if line.startswith("COPY") for name in line.split()[1:-1]]
    assert {"megatron_msm", "data_prep", "slurm", "evals", "examples"} < set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    (installing,) = [line for line in code if "pip install" in line]
    assert "PIP_CONSTRAINT=/etc/pip/constraint.txt" in installing


@pytest.mark.skipif(not shutil.which("hadolint"), reason="needs hadolint, of scripts/test.sh")
def test_the_image_is_linted(tmp_path: Path) -> None:
    def lint(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["hadolint", path], capture_output=True, text=True, check=False)

    assert lint(ROOT / "Dockerfile").stdout == ""
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp\n")
    assert lint(tmp_path / "Dockerfile").returncode == 1
