"""The commands of `msm prep` that plan and look at finished datasets.

Like `data_prep/cli.py`, which registers them, this module imports only typer.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Prefix = Annotated[Path, typer.Argument(metavar="PREFIX")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def pack(
    prefix: Prefix,
    *,
    seq_length: Annotated[int, typer.Option(min=2, help="Positions of a packed sequence.")],
    strategy: Annotated[
        Literal["best-fit", "first-fit-shuffle", "concatenate"],
        typer.Option(help="concatenate cuts documents wherever a sequence ends."),
    ] = "best-fit",
    max_documents: Annotated[
        int | None, typer.Option(min=1, help="Most documents of one sequence.")
    ] = None,
    align: Annotated[
        int, typer.Option(min=1, help="Pad each document to a multiple of this many positions.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Which documents share a sequence.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Plan the packed sequences of a dataset and store the plan beside it.

    Training finds the plan by the dataset's content and the same settings under data.packing.
    """
    from data_prep.pack import describe_packed, pack_dataset
    from megatron_msm.config.run import PackingConfig
    from megatron_msm.formats.manifest import dataset_prefix

    packing = PackingConfig(strategy=strategy, max_documents=max_documents, align=align, seed=seed)
    packed = pack_dataset(dataset_prefix(prefix), seq_length, packing)
    _print(describe_packed(packed), packed.as_json(), as_json=as_json)


def rows(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run's configuration.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="As given to `msm train`.")
    ] = None,
    *,
    phase: Annotated[str, typer.Option(help="The phase's name.")],
    step: Annotated[int, typer.Option(help="Optimizer step, counted from 1 as in metrics.jsonl.")],
    as_json: AsJson = False,
) -> None:
    """Show which rows an optimizer step of a run saw, and where they come from."""
    from data_prep.rows import describe_step, read_step

    found = read_step(run_file, overrides or [], phase=phase, step=step)
    content = {"phase": phase, "step": step, "rows": [row.as_json() for row in found]}
    _print(list(describe_step(found)), content, as_json=as_json)


def _print(lines: list[str], content: dict[str, Any], *, as_json: bool) -> None:
    import orjson

    if as_json:
        typer.echo(orjson.dumps(content).decode())
        return
    for line in lines:
        typer.echo(line)
