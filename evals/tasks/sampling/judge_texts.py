"""Judge prompts are data: a YAML file beside the task, whose `$names` are all filled in."""

from functools import cache
from pathlib import Path
from string import Template

from ruamel.yaml import YAML


@cache
def read_texts(path: Path) -> dict[str, str]:
    """Return the texts of a YAML file by name."""
    content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict), f"{path} is a mapping"
    return {str(name): str(text) for name, text in content.items()}


def fill(text: str, **names: str) -> str:
    """Return a text with its `$names` filled in; what is filled in is not filled again.

    Raises:
        KeyError: A name of the text is missing.
    """
    return Template(text).substitute(names)
