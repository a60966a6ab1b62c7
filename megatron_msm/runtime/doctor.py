"""`msm doctor`: what this machine can run, and what is missing."""

import importlib.util
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated

import typer

from megatron_msm.config.precision import Fp8Config
from megatron_msm.next_step import tell_next
from megatron_msm.runtime.fp8 import RECIPES, obstacles
from megatron_msm.runtime.versions import installed_versions


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
) -> None:
    """Show what this machine can run, and what is missing for the rest.

    Example: msm doctor --json
    """
    found = _findings()
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, state in found.items():
        typer.echo(f"{name:<20} {state}")
    tell_next("msm", "quickstart")


def _findings() -> dict[str, str]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    found = {
        **installed_versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "disk free": f"{free:.0f} GiB in {Path.cwd()}",
        "runtime": _runtime(),
        **{f"fp8 {recipe}": state for recipe, state in _fp8_recipes().items()},
    }
    for module, what, remedy in (
        ("transformer_engine", "FP8 and fused layers on GPUs", "pip install 'megatron-msm[gpu]'"),
        ("transformers", "msm eval, msm convert verify", "pip install 'megatron-msm[evals]'"),
        ("gguf", "the quickstart's model", "pip install 'megatron-msm[quickstart]'"),
        ("submitit", "msm submit, msm experiment", "pip install 'megatron-msm[slurm]'"),
    ):
        is_there = importlib.util.find_spec(module) is not None
        found[module] = "installed" if is_there else f"missing, for {what}: {remedy}"
    return found


def _runtime() -> str:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        return f"cuda: {torch.cuda.device_count()} x {', '.join(sorted(names))}"
    return "cpu: gloo ranks, megatron-core's local layers (no GPU seen by torch)"


def _fp8_recipes() -> dict[str, str]:
    """Return for each FP8 recipe that it runs here, or what is missing."""
    from megatron_msm.runtime.device import this_machine

    machine = this_machine()
    found = {recipe: obstacles(Fp8Config(recipe=recipe), machine) for recipe in RECIPES}
    return {recipe: " ".join(missing) or "runs here" for recipe, missing in found.items()}
