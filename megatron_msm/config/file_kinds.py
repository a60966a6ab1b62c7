"""The kinds of YAML file that a user writes; `msm schema` and `msm init`.

Each package names its own under the entry-point group `msm.files`, as MODULE:CONFIG. The file to
start from lies beside that module as MODULE.start.yaml. In it `$file` stands for the file itself,
`$examples` for the folder of the shipped examples as seen from it, and `$examples_here` for that
folder as seen from where the command runs. Its comments `#   msm ...` are what to type next.
"""

import difflib
import json
import os
import re
import shlex
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated

import typer
from pydantic import BaseModel

from megatron_msm.config.json_schema import json_schema
from megatron_msm.errors import ConfigError
from megatron_msm.shipped_examples import examples_folder

Kind = Annotated[
    str, typer.Argument(metavar="KIND", help="generate, grid, run, site or suite: which file.")
]
_NEXT = re.compile(r"^#   (msm .*)$", re.MULTILINE)


def schema(kind: Kind) -> None:
    """Print the JSON schema of a YAML file, by which an editor completes and checks it.

    Example: msm schema run
    """
    typer.echo(json.dumps(json_schema(config_type(kind)), indent=2))


def init(
    kind: Kind,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where it goes. Left out: KIND.yaml.")
    ] = None,
) -> None:
    """Write a commented YAML file to start from; it works as it is, on the shipped examples.

    Example: msm init grid study.yaml
    """
    text = starting_text(kind, file := file or Path(f"{kind}.yaml"))
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise ConfigError(
            f"{file}: is there already, and nothing is overwritten. "
            f"Give another name: msm init {kind} OTHER.yaml"
        ) from None
    typer.echo(f"written    {file}")
    for number, command in enumerate(_NEXT.findall(text)):
        typer.echo(f"{'' if number else 'next:':<5} {command}")


def file_kinds() -> dict[str, EntryPoint]:
    """Return where the configuration of each kind of file is, by the kind's name."""
    return {entry.name: entry for entry in sorted(entry_points(group="msm.files"))}


def config_type(kind: str) -> type[BaseModel]:
    """Return what a file of this kind is checked by.

    Raises:
        ConfigError: There is no such kind.
    """
    found: type[BaseModel] = _entry(kind).load()
    return found


def starting_text(kind: str, file: Path) -> str:
    """Return a file to start from.

    Args:
        kind: The name of its kind.
        file: Where it will lie.

    Raises:
        ConfigError: There is no such kind.
    """
    spec = find_spec(_entry(kind).module)
    assert spec is not None
    assert spec.origin is not None, "it was found as a module"
    template = Template(Path(spec.origin).with_suffix(".start.yaml").read_text(encoding="utf-8"))
    examples = examples_folder()
    return template.substitute(
        file=shlex.quote(str(file)),
        examples=_seen_from(file.parent, examples),
        examples_here=shlex.quote(_seen_from(Path(), examples)),
    )


def _entry(kind: str) -> EntryPoint:
    kinds = file_kinds()
    if kind not in kinds:
        nearest = difflib.get_close_matches(kind, kinds, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ConfigError(f"{kind!r}: no such kind of file; there are {', '.join(kinds)}.{hint}")
    return kinds[kind]


def _seen_from(folder: Path, target: Path) -> str:
    """Return a relative path where both are below the working folder, else an absolute one."""
    here = Path.cwd()
    if target.is_relative_to(here) and folder.absolute().is_relative_to(here):
        return os.path.relpath(target, folder)
    return str(target)
