"""Versions of what a result depends on, and the commit of its code."""

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

from megatron_msm.runtime.versions import installed_versions, source_commit


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source file in a checkout of its own."""
    path = tmp_path / "package" / "module.py"
    path.parent.mkdir()
    path.write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return path


def test_a_commit_says_when_its_files_were_changed(source: Path) -> None:
    head = git(source.parent, "rev-parse", "HEAD")
    assert source_commit(source) == head
    (source.parent / "notes.txt").write_text("not under git\n")
    assert source_commit(source) == head
    source.write_text("x = 2\n")
    assert source_commit(source) == f"{head}+changes"


def test_an_installed_package_inside_somebody_elses_checkout_has_no_commit(source: Path) -> None:
    installed = source.parent / "site-packages" / "megatron_msm" / "file.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert source_commit(installed) is None


def test_outside_of_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    (tmp_path / "module.py").touch()
    assert source_commit(tmp_path / "module.py") is None


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = installed_versions()
    for package in ("torch", "megatron-core", "numpy"):
        assert found[package] == importlib.metadata.version(package)

    def version(package: str) -> str:
        if package == "numpy":
            raise importlib.metadata.PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr("megatron_msm.runtime.versions.version", version)
    assert "numpy" not in installed_versions()
    assert installed_versions()["torch"] == "1"
