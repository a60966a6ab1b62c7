"""`msm fetch`: a model of the Hugging Face hub, for commands that take a model folder."""

from typing import Annotated

import typer

from megatron_msm.convert.huggingface.fetching import fetch_model
from megatron_msm.next_step import tell_next
from megatron_msm.progress import show_progress


def fetch(
    repo: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="A model on the hub.", show_default=False)
    ],
    revision: Annotated[
        str, typer.Option(metavar="REV", help="Branch, tag or commit; its commit is recorded.")
    ] = "main",
) -> None:
    """Fetch a model from the Hugging Face hub, once, with the hash of every file.

    Afterwards ORG/NAME, or ORG/NAME@COMMIT, stands wherever a Hugging Face folder is taken.

    Example: msm fetch HuggingFaceTB/SmolLM2-135M-Instruct
    """
    with show_progress() as progress:
        folder, was_there = fetch_model(repo, revision, progress=progress)
    typer.echo(f"{'there' if was_there else 'fetched':<10} {folder}")
    tell_next("msm", "convert", "import", repo, "CHECKPOINT")
