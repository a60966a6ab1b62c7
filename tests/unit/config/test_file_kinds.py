"""`msm init` and `msm schema`: files to start from, and schemas held to another validator."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from typer.testing import CliRunner

from data_prep.generate.run import resolved_paths
from data_prep.generate.settings import GenerateConfig
from evals.models.local import LocalModel
from evals.suite import prepare_suite
from megatron_msm.cli import build_app
from megatron_msm.config.file_kinds import config_type, file_kinds, starting_text
from megatron_msm.config.json_schema import json_schema
from megatron_msm.config.load import load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.errors import ConfigError
from slurm.experiments.planning import load_grid
from slurm.jobs.site import load_site
from tests.tiny import write_tiny_llama

ROOT = Path(__file__).parents[3]
KINDS = ("generate", "grid", "run", "site", "suite")
SHIPPED = {
    "generate": ["examples/cheese/generate.yaml", "examples/plain_or_lasting/generate.yaml"],
    "grid": [
        "examples/cheese/grid.yaml",
        "examples/plain_or_lasting/quickstart.yaml",
        "examples/plain_or_lasting/grid.yaml",
    ],
    "site": ["examples/sites/bare-metal.yaml", "examples/sites/ngc-container.yaml"],
    "suite": ["examples/plain_or_lasting/suite.yaml"],
}


def refusals(kind: str, content: object) -> list[str]:
    """Return what a validator that is not ours has against the content of a file."""
    validator = Draft202012Validator(json_schema(config_type(kind)))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(content)]


def started(kind: str) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(starting_text(kind, Path(f"{kind}.yaml")))
    return content


def test_the_kinds_are_these_and_help_names_them() -> None:
    assert tuple(file_kinds()) == KINDS
    shown = CliRunner().invoke(build_app(), ["schema", "--help"], terminal_width=200).stdout
    assert all(kind in shown for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_schema_is_one_and_takes_every_shipped_file(kind: str) -> None:
    done = CliRunner().invoke(build_app(), ["schema", kind])
    Draft202012Validator.check_schema(printed := json.loads(done.stdout))
    assert printed == json_schema(config_type(kind))
    shipped = [YAML(typ="safe").load(ROOT / name) for name in SHIPPED.get(kind, [])]
    for content in (started(kind), *shipped):
        assert refusals(kind, content) == []


@pytest.mark.parametrize(
    ("kind", "path", "value", "refused"),
    [
        ("run", "phases.0.optimizer.learning_rate", 1, "learning_rate"),
        ("run", "phases.0.optimizer.lr", "fast", "fast"),
        ("run", "phases.0.global_batch_size", 0, "0 is less than the minimum of 1"),
        ("grid", "midtrain.seqlength", 1, "seqlength"),
        ("grid", "run.parallel.tensr", 1, "tensr"),
        ("grid", "seeds", "all", "all"),
        ("site", "stages.prep.parition", "cpu", "parition"),
        ("suite", "evaluations.values.task", "quiz", "evaluations.values"),
        ("suite", "evaluations.values.itemz", "x", "evaluations.values"),
        ("generate", "endpoints.grammar.kind", "grammer", "endpoints.grammar"),
        ("generate", "documents.mode", "novel", "novel"),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    kind: str, path: str, value: object, refused: str
) -> None:
    content = started(kind)
    put(content, path, value)
    assert refused in " ".join(refusals(kind, content))


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("grid", "seeds", 3),
        ("grid", "midtrain.data", {"packing": {"align": 2}}),
        ("grid", "later", [{"name": "then", "chats": ["c"], "phase": {}}]),
        ("generate", "variants", {"a": "a.md", "b": {"mode": "neutral"}}),
        ("run", "phases.0.global_batch_tokens", 512),
    ],
)
def test_the_schema_takes_every_form_that_the_loader_takes(
    kind: str, path: str, value: object, tmp_path: Path
) -> None:
    content = started(kind)
    put(content, path, value)
    if kind == "run":
        del content["phases"][0]["global_batch_size"]
    if path == "later":
        content["later"][0]["phase"] = dict(content["sft"])
    assert refusals(kind, content) == []
    (tmp_path / "file.yaml").write_text(json.dumps(content))
    load_config(tmp_path / "file.yaml", config_type(kind))


def put(content: Any, path: str, value: object) -> None:
    *parents, last = path.split(".")
    for part in parents:
        content = content[int(part)] if isinstance(content, list) else content[part]
    content[last] = value


def fields(node: object) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, list):
        for element in node:
            yield from fields(element)
    elif isinstance(node, dict):
        properties = node.get("properties")
        if isinstance(properties, dict):
            yield from properties.items()
        for value in node.values():
            yield from fields(value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_text_or_is_a_section_that_has_one(kind: str) -> None:
    schema = json_schema(config_type(kind))
    found = list(fields(schema))
    assert len(found) > 10
    for name, field in found:
        section = schema.get("$defs", {}).get(field.get("$ref", "").rpartition("/")[2], {})
        named = name == "task" and "const" in field
        assert named or field.get("description") or section.get("description"), name
        assert "\n" not in field.get("description", "")


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_to_start_from_is_taken_by_its_own_loader(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(build_app(), ["init", kind, "mine.yaml"])
    assert done.exit_code == 0, done.output
    file = tmp_path / "mine.yaml"
    assert "#   msm" in file.read_text()
    assert "$" not in file.read_text()
    assert "next: msm " in done.stdout
    match kind:
        case "run":
            assert [phase.name for phase in load_config(file, RunConfig).phases] == [
                "midtrain",
                "sft",
            ]
        case "grid":
            assert set(load_grid(file, ()).specs) == {"homemade", "affordability"}
        case "site":
            assert load_site(file).defaults.gpus
        case "suite":
            write_tiny_llama(tmp_path / "model")
            assert "values" in prepare_suite(file, LocalModel(tmp_path / "model"))
        case "generate":
            config = resolved_paths(load_config(file, GenerateConfig), file)
            assert config.spec.is_file()


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"run\.yaml: is there already, .* msm init run OTHER"):
        CliRunner().invoke(build_app(), ["init", "run"], catch_exceptions=False)
    assert Path("run.yaml").read_text() == "mine"


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"there are generate, grid, .* Did you mean 'suite'"):
        CliRunner().invoke(build_app(), ["schema", "suit"], catch_exceptions=False)


def test_paths_to_the_examples_start_at_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert '"../examples/cheese/choice.jsonl"' in starting_text("grid", Path("studies/grid.yaml"))
    assert "docs examples/cheese/" in starting_text("run", Path("studies/run.yaml"))
    elsewhere = starting_text("grid", tmp_path / "grid.yaml")
    assert f'"{ROOT}/examples/cheese/choice.jsonl"' in elsewhere
