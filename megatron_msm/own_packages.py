"""That `data_prep`, `slurm` and `evals` are this software's.

They are packages of their own beside `megatron_msm`, and their names are common: a folder `evals`
with an `__init__.py`, or a `slurm.py`, in the working directory or on PYTHONPATH would be imported
in their place. So children look for nothing in the working directory, and `msm` checks at its
start.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

from megatron_msm.errors import ConfigError

PACKAGES = ("data_prep", "slurm", "evals")
SAFE_PATH = "-P"
"""Python's option that leaves the working directory out of what is searched for modules."""


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python."""
    return [sys.executable, SAFE_PATH, "-m", module, *arguments]


def check_own_packages() -> None:
    """Check that each package is the one that was installed with `megatron_msm`.

    Raises:
        ConfigError: Another one is found before it.
    """
    ours = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        origin = None if spec is None else spec.origin
        if origin is None:
            raise ConfigError(
                f"{name}: this package of megatron-msm is missing beside {ours / 'megatron_msm'}. "
                "Install megatron-msm again."
            )
        if Path(origin).resolve() != ours / name / "__init__.py":
            raise ConfigError(
                f"{origin}: Python finds this in the place of megatron-msm's own package "
                f"{name!r}. Rename it, or take its folder out of PYTHONPATH and start `msm` itself "
                "rather than `python -m`."
            )
