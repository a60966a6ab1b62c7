"""`msm doctor`: it names what is missing, what for, and how to install it."""

import importlib.util
from importlib.machinery import ModuleSpec
from importlib.metadata import version

import pytest
import torch

from megatron_msm.runtime.doctor import doctor
from megatron_msm.runtime.fp8 import RECIPES


def lines_of(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    doctor()
    return {line[:20].strip(): line[21:] for line in capsys.readouterr().out.splitlines()}


def test_every_part_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(capsys)
    assert lines["torch"] == version("torch")
    assert lines["transformers"] == "installed"
    assert set(lines) >= {f"fp8 {recipe}"[:20] for recipe in RECIPES}
    if not torch.cuda.is_available():
        assert lines["runtime"].startswith("cpu: gloo ranks")
        assert all(lines[f"fp8 {recipe}"[:20]] != "runs here" for recipe in RECIPES)


def test_what_is_missing_comes_with_the_command_that_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def without_submitit(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "submitit" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_submitit)
    expected = "missing, for msm submit, msm experiment: pip install 'megatron-msm[slurm]'"
    assert lines_of(capsys)["submitit"] == expected
