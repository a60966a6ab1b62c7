"""A group of commands that are imported when they are called.

The list of commands takes their help from the source. So the module of a command can import at its
top what it needs. What brings torch, transformers or matplotlib yet waits until the command runs:
its `--help` and the refusal of a wrong option come at once.

Help names each value in capitals (DIR, N) and leaves the names of Python's types out.
"""

import ast
import functools
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


def _nothing() -> None:
    pass


def lazy_app(
    commands: Mapping[str, str],
    *,
    help: str,
    callback: Callable[..., None] = _nothing,
    **settings: Any,
) -> typer.Typer:
    """Return a group of commands.

    Args:
        commands: By its name where each command is, as MODULE:NAME: a function (one command) or
            another such group.
        help: What the group is for.
        callback: Has the options of the group itself.
        settings: Further ones of the Typer app.
    """

    class Group(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.lazy = [
                _LazyCommand(EntryPoint(name, where, "")) for name, where in commands.items()
            ]
            for command in self.lazy:
                self.add_command(command)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            """Write the list of commands, the only thing that needs the help of all of them."""
            for command in self.lazy:
                command.help = help_in_source(command.entry)
            _hide_types(self.get_params(ctx))
            super().format_help(ctx, formatter)

    app = _new_app(cls=Group, help=help, no_args_is_help=True, **settings)
    app.callback()(callback)
    return app


class _Command(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        _hide_types(self.get_params(ctx))
        super().format_help(ctx, formatter)


def _hide_types(params: Sequence[Any]) -> None:
    """Leave out of help what typer writes of types beside names: `<bool>`, `<list[Path]>`."""
    for param in params:
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None
        elif param.is_flag:
            param.metavar = ""


class _LazyCommand(TyperCommand):
    """A command's name; the command itself is imported to parse its arguments."""

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(entry.name)
        self.entry = entry

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Return the context of the command itself, from which it is then invoked."""
        command = typer.main.get_command(_as_app(self.entry.load()))
        return command.make_context(info_name, args, parent, **extra)


def help_in_source(entry: EntryPoint) -> str | None:
    """Return a command's help without importing it.

    It is the docstring of a function, or the argument `help` of the call that makes an app.
    """
    for node in _statements(entry.module):
        match node:
            case ast.FunctionDef(name=name) if name == entry.attr:
                return ast.get_docstring(node)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(keywords=keywords)) if (
                name == entry.attr
            ):
                [said] = [each.value for each in keywords if each.arg == "help"]
                return str(ast.literal_eval(said))
    return None


@functools.cache
def _statements(module: str) -> list[ast.stmt]:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return []
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body


def _as_app(command: typer.Typer | Callable[..., None]) -> typer.Typer:
    if isinstance(command, typer.Typer):
        return command
    app = _new_app()
    app.command(cls=_Command)(command)
    return app


def _new_app(*, add_completion: bool = False, **settings: Any) -> typer.Typer:
    return typer.Typer(add_completion=add_completion, pretty_exceptions_enable=False, **settings)
