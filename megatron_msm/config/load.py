"""YAML and `section.field=value` overrides into a checked configuration.

YAML 1.2 by ruamel: PyYAML follows YAML 1.1 and reads `4:00:00` as 14400 and `1e-4` as text.
"""

import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

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
    for override in overrides:
        _apply_override(content, override)
    return checked(content, config_type, where=str(path))


def checked(content: object, config_type: type[Config], *, where: str) -> Config:
    """Return `content` as a `config_type`.

    Args:
        content: What was read from a file.
        config_type: The pydantic model of it.
        where: The file, and the place in it; begins each line of the message.

    Raises:
        ConfigError: A field is unknown, missing or wrong.
    """
    try:
        return config_type.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_explain(error, where, config_type)) from None


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


def _apply_override(content: YamlSection, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r}: write it as section.field=value.")
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from None
    *parents, last = key.split(".")
    node: Node = content
    for part in parents:
        node = _child(node, part, override)
    if isinstance(node, list):
        node[_list_index(node, last, override)] = value
    else:
        node[last] = value


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


def _explain(error: ValidationError, where: str, config_type: type[BaseModel]) -> str:
    lines = []
    for problem in error.errors():
        location = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{location}: unknown key. {_known_keys(problem['loc'], config_type)}")
        elif problem["type"] == "missing":
            lines.append(f"{location}: required, but missing.")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(problem["input"], dict) else f" Found {problem['input']!r}."
            lines.append(f"{location}: {message}.{shown}")
    return f"{where}: " + f"\n{where}: ".join(lines)


def _known_keys(location: tuple[int | str, ...], config_type: type[BaseModel]) -> str:
    """Return the nearest valid key and all of them, for an unknown key at `location`."""
    model = config_type
    for part in location[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = _section_type(model.model_fields[part].annotation) or model
    valid = list(model.model_fields)
    nearest = difflib.get_close_matches(str(location[-1]), valid, n=1)
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}Valid keys: {', '.join(valid)}."


def _section_type(annotation: object) -> type[BaseModel] | None:
    """Return the section model inside a field's annotation, such as `tuple[Phase, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_type(argument)
        if found:
            return found
    return None
