"""Every `msm` command that README and docs show is taken by the command line's own parser.

Commands in blocks are parsed whole: command, options, values and how many arguments. In running
text commands are named rather than given whole, so there the command and its options must exist.
Nothing is run here; `tests/integration/test_pages_run.py` runs them.
"""

import re
import shlex
from typing import Any

import pytest
import typer

from megatron_msm.cli import build_app
from tests.pages import ROOT, code_lines

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("README.md")),
    *sorted((ROOT / "examples").rglob("*.yaml")),
]
LAUNCHED = re.compile(r"^(?:\$ |#\s+)?(?:torchrun .*--no-python )?(msm [a-z-].*)$")
"""A line of a block that runs `msm`, itself or by torchrun; in YAML it is a comment."""
INLINE = re.compile(r"`(msm [a-z][^`]*)`")
GROUPS = {"convert", "eval", "experiment", "generate", "prep"}


def shown_commands() -> list[tuple[str, str, str]]:
    """Return (page, whole or named, command) of everything that pages show."""
    found = []
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text()
        for code in code_lines(text):
            if match := LAUNCHED.match(code):
                found.append((name, "whole", match.group(1).split(" > ")[0]))
        found += [(name, "named", " ".join(code.split())) for code in INLINE.findall(text)]
    return found


SHOWN = shown_commands()


def parse(words: list[str]) -> Any:
    """Return the context of the command that these words call, parsed and not run."""
    command: Any = typer.main.get_command(build_app())
    context = command.make_context("msm", words)
    while hasattr(context.command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, child, arguments = context.command.resolve_command(context, rest)
        assert child is not None
        context = child.make_context(name, arguments, parent=context)
    return context


def check_named(words: list[str]) -> None:
    """Check the command and the options of one that is not given whole."""
    depth = 2 if words[0] in GROUPS else 1
    command: Any = typer.main.get_command(build_app())
    for name in words[:depth]:
        assert name in command.commands, f"no command {name!r} there"
        entry = command.commands[name].entry
        loaded = entry.load()
        if not isinstance(loaded, typer.Typer):
            app = typer.Typer(add_completion=False)
            app.command()(loaded)
            loaded = app
        command = typer.main.get_command(loaded)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    for word in words[depth:]:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{word}: known are {sorted(known)}"


def test_the_pages_are_read() -> None:
    assert sum(way == "whole" for _, way, _ in SHOWN) > 90
    assert sum(way == "named" for _, way, _ in SHOWN) > 60
    assert {"README.md", "docs/data.md", "docs/tutorial.md"} <= {page for page, _, _ in SHOWN}


@pytest.mark.parametrize(
    ("page", "way", "command"), [pytest.param(*each, id=f"{each[0]}: {each[2]}") for each in SHOWN]
)
def test_a_shown_command_is_taken(page: str, way: str, command: str) -> None:
    words = shlex.split(command)[1:]
    if way == "whole":
        parse(words)
    else:
        check_named(words)


@pytest.mark.parametrize(
    "wrong",
    [
        "msm trian run.yaml",
        "msm train",
        "msm prep docs a.jsonl --token HF --out b",
        "msm doctor extra",
    ],
)
def test_a_wrong_command_would_be_found(wrong: str) -> None:
    with pytest.raises(Exception, match=r"No such|Missing|unexpected"):
        parse(shlex.split(wrong)[1:])


def test_remarks_and_continued_lines() -> None:
    text = "    msm a --b \\\n        --c   # why\n\n```sh\n$ msm d   what it does\n```\nmsm e\n"
    assert [code for code in code_lines(text) if code] == ["msm a --b --c", "$ msm d"]
