"""Versions of what a result depends on."""

import platform
from importlib.metadata import PackageNotFoundError, version

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
