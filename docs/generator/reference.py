"""Writes docs/reference/KIND.md from the JSON schemas: `python docs/generator/reference.py`.

The pages are committed, so that they are read where the repository is; a test says when they are
out of date.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from ruamel.yaml import YAML

from megatron_msm.config.file_kinds import config_type, file_kinds
from megatron_msm.config.json_schema import json_schema

FOLDER = Path(__file__).parents[1] / "reference"
EXAMPLES = Path(__file__).with_name("examples.yaml")
UNITS = {
    "epochs": "epochs",
    "fraction": "share, 0 to 1",
    "gib": "GiB",
    "length": "positions",
    "min": "minutes",
    "nats": "nats",
    "rows": "rows",
    "s": "seconds",
    "share": "share, 0 to 1",
    "steps": "optimizer steps",
    "tokens": "tokens",
    "usd": "US dollars",
    "words": "words",
}
"""The unit that the last word of a number's name says."""
SIZES = {
    "global_batch_size": "packed sequences",
    "micro_batch_size": "packed sequences",
    **dict.fromkeys(("tensor", "pipeline", "context", "expert", "data"), "ranks"),
}
"""Units of numbers whose names do not end in them."""

Schema = Mapping[str, object]


def page(kind: str) -> str:
    """Return the reference page of a kind of file."""
    schema = json_schema(config_type(kind))
    lines = [
        f"# {kind.upper()}.yaml",
        "",
        f"Written by `python docs/generator/reference.py` from `msm schema {kind}`. "
        f"`msm init {kind}` writes a file to start from.",
    ]
    examples = _yaml_as_written().load(EXAMPLES)
    lines += ["", "## The whole file", "", *table(schema, examples[kind])]
    for title, section in sections(schema):
        lines += ["", f"## {title}", "", *table(section, examples.get(title, {}))]
    return "\n".join(lines) + "\n"


def sections(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield each named section of a file, and each alternative of a mapping by name."""
    for name, found in sorted(mapping(schema.get("$defs")).items()):
        yield name.strip("_"), mapping(found)
    yield from _alternatives(schema.get("properties"))


def table(section: Schema, examples: Mapping[str, object]) -> Iterator[str]:
    """Yield the lines that describe a section, with an example value of some fields."""
    yield str(section.get("description", ""))
    if "properties" not in section:
        return
    yield from ("", "| field | type | unit | default | |", "|---|---|---|---|---|")
    required = section.get("required", [])
    assert isinstance(required, list)
    for name, field in mapping(section["properties"]).items():
        row = _row(name, mapping(field), is_required=name in required)
        yield f"{row} Example: `{_flow(examples[name])}` |" if name in examples else f"{row} |"


def mapping(value: object) -> dict[str, object]:
    """Return the value as the mapping that it is; of None an empty one."""
    if value is None:
        return {}
    assert isinstance(value, dict)
    return value


def _alternatives(node: object) -> Iterator[tuple[str, Schema]]:
    for value in mapping(node).values():
        if isinstance(value, dict):
            for each in value.get("oneOf", []):
                if "title" in each:
                    yield each["title"], each
            yield from _alternatives(value)


def _row(name: str, field: Schema, *, is_required: bool) -> str:
    of = type_of(field)
    default = field.get("default")
    is_section = "](#" in of or isinstance(default, dict)
    if is_required:
        shown = "required"
    elif default is None:
        shown = "left out"
    elif of == "path" and Path(str(default)).is_absolute():
        shown = "shipped with the package"
    else:
        shown = "the section's own" if is_section else f"`{_yaml(default)}`"
    is_number = any(word in of for word in ("integer", "number"))
    unit = SIZES.get(name, UNITS.get(name.rpartition("_")[2], "")) if is_number else ""
    text = str(field.get("description", "")).replace("|", "\\|").replace("\n\n", " ")
    return f"| `{name}` | {of} | {unit} | {shown} | {text}"


def type_of(field: Schema) -> str:
    """Return the type of a field in words."""
    if "$ref" in field:
        name = str(field["$ref"]).rpartition("/")[2].strip("_")
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    for choice in ("anyOf", "oneOf"):
        options = field.get(choice)
        if isinstance(options, list) and all(
            {"$ref", "type", "enum", "const", "properties"} & each.keys() for each in options
        ):
            named = (each["title"] for each in options if each.get("title"))
            words = list(named) if choice == "oneOf" else []
            words = words or [type_of(each) for each in options if each.get("type") != "null"]
            return ", or ".join(dict.fromkeys(words)) if len(words) < 6 else "one of those below"
    if "enum" in field:
        values = field["enum"]
        assert isinstance(values, list)
        return ", ".join(f"`{value}`" for value in values)
    match field.get("type"):
        case "array":
            return f"list of {type_of(mapping(field.get('items')))}"
        case "object":
            return f"mapping to {type_of(_values(field))}"
        case "string":
            return "path" if field.get("format") == "path" else "text"
        case "integer" | "number" as number:
            return f"{number}{_range(field)}"
        case "boolean":
            return "true, false"
    return "anything"


def _values(field: Schema) -> dict[str, object]:
    patterns = list(mapping(field.get("patternProperties")).values())
    found = patterns[0] if patterns else field.get("additionalProperties")
    return found if isinstance(found, dict) else {}


def _range(field: Schema) -> str:
    signs = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{words} {field[key]}" for key, words in signs.items() if key in field]
    return f", {' and '.join(limits)}" if limits else ""


def _yaml_as_written() -> YAML:
    """Return a reader and writer that keeps quotes and forms of numbers, each value on one line."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.default_flow_style = True
    yaml.width = 10_000
    return yaml


def _flow(value: object) -> str:
    out = io.StringIO()
    _yaml_as_written().dump([value], out)
    return out.getvalue().strip().removeprefix("[").removesuffix("]")


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(each) for each in value) + "]"
    return str(value) if value != "" else '""'


if __name__ == "__main__":
    for each in file_kinds():
        (FOLDER / f"{each}.md").write_text(page(each), encoding="utf-8")
