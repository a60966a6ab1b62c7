"""The `msm` command.

Subcommands are found through the entry-point group `msm.commands`, so the other packages add theirs
without being imported from here.
"""

import errno
import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from megatron_msm.errors import INTERRUPTED_STATUS, ConfigError, MissingExtraError, MsmError
from megatron_msm.lazy_commands import lazy_app
from megatron_msm.own_packages import check_own_packages

_EXTRA_OF_PACKAGE = {
    "anthropic": "generate",
    "huggingface_hub": "hub",
    "genai_prices": "generate",
    "inspect_ai": "evals",
    "json_repair": "generate",
    "lm_eval": "harness",
    "matplotlib": "evals",
    "megatron": "train",
    "openai": "generate",
    "safetensors": "train",
    "scipy": "evals",
    "submitit": "slurm",
    "tensorboard": "train",
    "torch": "train",
    "transformers": "evals",
}


_STATUSES = (
    "Exit status: 0 done; 1 failed; 2 an option, a file or an input is wrong; 75 stopped with all "
    "saved, the same command goes on; 130 stopped by Ctrl-C."
)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def build_app() -> typer.Typer:
    """Return the command with everything registered under `msm.commands`."""
    entries = sorted(entry_points(group="msm.commands"), key=lambda entry: entry.name)
    return lazy_app(
        {entry.name: entry.value for entry in entries},
        help="Model Spec Midtraining at Megatron scale.\n\nExample: msm quickstart",
        epilog=_STATUSES,
        callback=_options,
        add_completion=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"msm {version('megatron-msm')}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake ends with one message and the error's status."""
    try:
        check_own_packages()
        build_app()(prog_name="msm")
    except SystemExit as end:
        if end.code == INTERRUPTED_STATUS:
            sys.stderr.write("stopped by Ctrl-C\n")
        raise
    except MsmError as error:
        _end_with(error)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF_PACKAGE.get(error.name or "")
        if extra is None:
            raise
        _end_with(MissingExtraError(feature=f"msm {sys.argv[1]}", extra=extra))
    except OSError as error:
        # A path or a full disk is the user's to mend; without a path it is a defect of ours.
        if error.errno in _FULL:
            _end_with(MsmError(f"{error.strerror}. Make room, and run the command again."))
        if error.filename is None:
            raise
        _end_with(ConfigError(f"{error.filename}: {error.strerror}. Give another path."))


def _end_with(error: MsmError) -> None:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
