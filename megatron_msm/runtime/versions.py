"""Versions of what a result depends on."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("megatron-msm", "megatron-core", "torch", "transformer_engine", "numpy", "tokenizers")


def installed_versions() -> dict[str, str]:
    """Return Python's version and those of the installed packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def source_commit(source: Path) -> str | None:
    """Return the git commit that a source file is of; None outside of a checkout.

    A commit whose files were changed since ends with `+changes`.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        changes = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + changes
    except (OSError, subprocess.SubprocessError):
        return None
