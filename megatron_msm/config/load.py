"""YAML and `section.field=value` overrides into a checked configuration.

YAML 1.2 by ruamel: PyYAML follows YAML 1.1 and reads `4:00:00` as 14400 and `1e-4` as text.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from megatron_msm.config.explain import (
    KeyPath,
    as_override,
    lines_of,
    nearest_line,
    problems_of,
)
from megatron_msm.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)
YamlSection: TypeAlias = dict[str, object]
"""A section of a file before it is checked."""
Node: TypeAlias = YamlSection | list[object]
"""What a path of an override goes through: a section, or a list of such."""


def load_config(path: Path, config_type: type[Config], overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides and check the result.

    Args:
        path: The YAML file.
        config_type: The pydantic model of its content.
        overrides: `a.b=value` (value in YAML); a number in the path picks a list element.

    Raises:
        ConfigError: The file cannot be read, or a field is unknown, missing or wrong.
    """
    content = read_yaml(path)
    changed = {_apply_override(content, override): override for override in overrides}
    return checked(content, config_type, file=path, changed=changed)


def checked(
    content: object,
    config_type: type[Config],
    *,
    file: Path,
    at: KeyPath = (),
    changed: Mapping[KeyPath, str] | None = None,
) -> Config:
    """Return `content` as a `config_type`.

    Args:
        content: What was read from a file.
        config_type: The pydantic model of it.
        file: Where it was read.
        at: The place of it in the file.
        changed: Overrides by the field that each has set.

    Raises:
        ConfigError: A field is unknown, missing or wrong; the message has a line for each.
    """
    try:
        return config_type.model_validate(content)
    except ValidationError as error:
        lines = lines_of(file.read_text())
        told = []
        for problem in problems_of(error, config_type):
            override = _override_of(problem.at, changed or {})
            line = None if override else nearest_line((*at, *problem.at), lines)
            where = str(file) if line is None else f"{file}:{line}"
            field = ".".join([*map(str, at), as_override(problem.at, content)])
            given = f" (override {override!r})" if override else ""
            told.append(f"{where}: {field}: {problem.text}{given}")
        raise ConfigError("\n".join(told)) from None


def _override_of(at: KeyPath, changed: Mapping[KeyPath, str]) -> str | None:
    found = [override for path, override in changed.items() if path == at[: len(path)]]
    return found[-1] if found else None


def dump_config(config: BaseModel) -> str:
    """Return the configuration as YAML, every field written out."""
    stream = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(config.model_dump(mode="json"), stream)
    return stream.getvalue()


def read_yaml(path: Path) -> YamlSection:
    """Return what a YAML file holds.

    Raises:
        ConfigError: It cannot be read, or is no mapping.
    """
    try:
        content = YAML(typ="safe").load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. Give the path of a YAML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: found {type(content).__name__}, a mapping of sections is needed."
        )
    return content


def _apply_override(content: YamlSection, override: str) -> KeyPath:
    """Set a field, and return its path."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r}: write it as section.field=value.")
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from None
    *parents, last = key.split(".")
    node: Node = content
    path: list[int | str] = []
    for part in parents:
        path.append(_list_index(node, part, override) if isinstance(node, list) else part)
        node = _child(node, part, override)
    if isinstance(node, list):
        position = _list_index(node, last, override)
        node[position] = value
        return (*path, position)
    node[last] = value
    return (*path, last)


def _child(node: Node, part: str, override: str) -> Node:
    if isinstance(node, list):
        child = node[_list_index(node, part, override)]
    else:
        child = node.setdefault(part, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"override {override!r}: {part!r} is a value, not a section.")
    return child


def _list_index(node: list[object], part: str, override: str) -> int:
    """Return the position that `part` names: a number, or the `name` of an element."""
    names = [element.get("name") if isinstance(element, dict) else None for element in node]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(node):
        return int(part)
    known = [str(name) for name in names if name] or [str(i) for i in range(len(node))]
    raise ConfigError(f"override {override!r}: no element {part!r} there. Known: {known}.")
