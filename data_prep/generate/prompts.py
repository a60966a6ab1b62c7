"""Prompt templates: files of ours or of the user, rendered strictly.

Every variable of a template must be given and every one given must be used; what is inserted is
text, whatever braces it holds.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jinja2
from jinja2 import meta
from jinja2.sandbox import SandboxedEnvironment

from megatron_msm.errors import ConfigError


class _Template(NamedTuple):
    """A template that can be filled."""

    where: str
    """Names its file in messages."""
    asked: frozenset[str]
    """Its placeholders."""
    filled_by: jinja2.Template


class Prompts:
    """The templates of a run.

    Args:
        folder: Where a template of the same name replaces ours.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"templates: {folder} is no folder. Give one with NAME.txt files.")
        known = sorted(template_names())
        for path in sorted(folder.glob("*.txt")) if folder is not None else ():
            if path.stem not in known:
                near = get_close_matches(path.stem, known, n=1) or known
                raise ConfigError(
                    f"templates: {path} would replace nothing. Did you mean {', '.join(near)}?"
                )
        self._folder = folder
        self._templates: dict[str, _Template] = {}
        self._environment = SandboxedEnvironment(
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(self, name: str, common: Mapping[str, object], /, **values: object) -> str:
        """Fill a template.

        Args:
            name: The file's name without `.txt`.
            common: Values that it may use.
            values: Values that it must use.

        Raises:
            ConfigError: The template is broken, or its variables are not those that are given.
        """
        where, asked, template = self._template(name)
        if unknown := sorted(asked - values.keys() - common.keys()):
            raise ConfigError(
                f"{where}: unknown placeholders {unknown}. "
                f"Known there: {sorted({*values, *common})}."
            )
        if unused := sorted(values.keys() - asked):
            raise ConfigError(
                f"{where}: placeholders {unused} are missing. The step needs them in its text."
            )
        try:
            return template.render({**common, **values}).strip() + "\n"
        except jinja2.TemplateError as error:
            raise ConfigError(f"{where}: {error}. Repair the template.") from None

    def _template(self, name: str) -> _Template:
        """Return a template, which is parsed once a run: parsing takes longer than filling."""
        if name not in self._templates:
            where, source = self._source(name)
            try:
                asked = meta.find_undeclared_variables(self._environment.parse(source))
                template = self._environment.from_string(source)
            except jinja2.TemplateError as error:
                raise ConfigError(f"{where}: {error}. Repair the template.") from None
            self._templates[name] = _Template(where, frozenset(asked), template)
        return self._templates[name]

    def _source(self, name: str) -> tuple[str, str]:
        own = self._folder / f"{name}.txt" if self._folder is not None else None
        if own is not None and own.is_file():
            return str(own), own.read_text(encoding="utf-8")
        packaged = files("data_prep.generate").joinpath("templates", f"{name}.txt")
        return f"template {name}", packaged.read_text(encoding="utf-8")


def template_names() -> Iterator[str]:
    """Yield the names of the templates that come with the package."""
    for entry in files("data_prep.generate").joinpath("templates").iterdir():
        yield entry.name.removesuffix(".txt")
