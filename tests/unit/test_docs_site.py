"""The documentation builds as a site, links lead somewhere, and generated pages are current."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from docs.generator.reference import EXAMPLES, FOLDER, Schema, mapping, page, sections, type_of
from megatron_msm.config.file_kinds import config_type, file_kinds
from megatron_msm.config.json_schema import json_schema

ROOT = Path(__file__).parents[2]
needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("material") is None,
    reason="needs mkdocs-material, which scripts/test.sh installs",
)


def build(*options: str, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(
        [*command, *options],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_mkdocs
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    done = build(site=tmp_path)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    assert (tmp_path / "repository/examples/cheese/grid.yaml.txt").is_file()
    assert (
        'href="repository/examples/cheese/grid.yaml.txt"' in (tmp_path / "slurm.html").read_text()
    )
    for each in pages:
        fetched = re.findall(
            r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]+"', each.read_text()
        )
        fetched += re.findall(r'<link[^>]+stylesheet[^>]+href="(?:https?:)?//', each.read_text())
        assert not fetched, f"{each.name}: {fetched}"


@needs_mkdocs
@pytest.mark.parametrize("link", ["nowhere.md", "../examples/nowhere.yaml", "data.md#nowhere"])
def test_a_link_that_leads_nowhere_fails_the_build(link: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# A\n\n[b]({link})\n")
    (tmp_path / "docs/data.md").write_text("# Data\n")
    settings = (ROOT / "mkdocs.yml").read_text()
    settings = settings.split("nav:")[0].replace("docs_dir: docs", f"docs_dir: {tmp_path}/docs")
    settings = settings.replace("[docs/", f"[{ROOT}/docs/")
    (tmp_path / "mkdocs.yml").write_text(settings)
    done = build("--config-file", str(tmp_path / "mkdocs.yml"), site=tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr


@pytest.mark.parametrize("kind", sorted(file_kinds()))
def test_the_reference_is_what_the_schemas_say(kind: str) -> None:
    written = (FOLDER / f"{kind}.md").read_text(encoding="utf-8")
    assert written == page(kind), "renew it: python docs/generator/reference.py"


def test_the_reference_names_fields_with_unit_default_and_text() -> None:
    text = (FOLDER / "run.md").read_text(encoding="utf-8")
    assert "| `stop_after_min` | number, above 0 | minutes | left out | Minutes after" in text
    assert "| `kind` | `cosine`, `linear`, `constant`, `wsd` |  | `cosine` |" in text
    assert "## agentic_misalignment" in (FOLDER / "suite.md").read_text(encoding="utf-8")


def has_an_example(field: Schema) -> bool:
    """Whether a field wants one: text that is no choice, and what holds such text or is open."""
    words = type_of(field).replace("list of ", "").split(" to ")[-1]
    is_open = any(word in words.split(", or ") for word in ("text", "path", "anything"))
    is_mapping = type_of(field).startswith("mapping to")
    return (is_open or is_mapping) and field.get("default") in (None, [], {}, "")


@pytest.mark.parametrize("kind", sorted(file_kinds()))
def test_examples_are_what_the_schema_takes_and_none_is_wanting(kind: str) -> None:
    examples = YAML(typ="safe").load(EXAMPLES)
    schema = json_schema(config_type(kind))
    checked = 0
    for title, part in [(kind, schema), *sections(schema)]:
        known = mapping(part.get("properties"))
        given = examples.get(title, {})
        wanted = {name for name, field in known.items() if has_an_example(mapping(field))}
        assert wanted <= given.keys(), f"{title} in {EXAMPLES.name}"
        for name in given.keys() & known.keys():
            field = {**mapping(known[name]), "$defs": schema.get("$defs", {})}
            jsonschema.validate(given[name], field)
            checked += 1
    assert checked > 15


def test_no_example_is_of_a_field_that_is_gone() -> None:
    fields: dict[str, set[str]] = {}
    for kind in file_kinds():
        schema = json_schema(config_type(kind))
        for title, part in [(kind, schema), *sections(schema)]:
            fields.setdefault(title, set()).update(mapping(part.get("properties")))
    examples = YAML(typ="safe").load(EXAMPLES)
    gone = {title: given.keys() - fields[title] for title, given in examples.items()}
    assert {title: names for title, names in gone.items() if names} == {}


def test_every_message_of_the_troubleshooting_page_is_in_the_code() -> None:
    packages = ("megatron_msm", "data_prep", "slurm", "evals")
    source = "".join(path.read_text() for each in packages for path in (ROOT / each).rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # a message is one text, however it is wrapped
    tables = (ROOT / "docs/troubleshooting.md").read_text().split("| message has |")[1:]
    rows = [row for table in tables for row in table.split("\n\n")[0].splitlines()[2:]]
    messages = [text for row in rows for text in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(messages) > 70
    assert [message for message in messages if message not in source] == []
