"""The last line of a command's output: what to type next."""

import shlex

import typer


def tell_next(*words: object, why: str = "") -> None:
    """Print a command as a shell takes it.

    Args:
        words: The command's words; those in capitals are for the user to fill in.
        why: What it is good for.
    """
    command = shlex.join(map(str, words))
    typer.echo(f"next: {command}" + (f"   # {why}" if why else ""))
