"""The `msm` command.

Subcommands are found through the entry-point group `msm.commands`, so the other packages add theirs
without being imported from here. Each registered module imports nothing heavy until its command
runs: `msm --help` must start at once.
"""

import sys
from importlib.metadata import entry_points

import typer

from megatron_msm.errors import MsmError


def build_app() -> typer.Typer:
    """Return the command with everything registered under `msm.commands`.

    An entry point is either a Typer app (a group of commands) or a function (one command).
    """
    app = typer.Typer(
        name="msm",
        help="Model Spec Midtraining at Megatron scale.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for entry in sorted(entry_points(group="msm.commands"), key=lambda entry: entry.name):
        command = entry.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    return app


def main() -> None:
    """Run the command line; a user's mistake ends with one message and the error's status."""
    app = build_app()
    try:
        app()
    except MsmError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
