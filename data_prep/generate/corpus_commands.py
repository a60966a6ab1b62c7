"""The commands of `msm generate` on corpora of documents, whoever made them."""

from pathlib import Path
from typing import Annotated

import orjson
import typer

from data_prep.generate.corpus import selecting
from data_prep.generate.corpus.conditions import parse_conditions
from data_prep.generate.corpus.doses import Dose, Unit
from megatron_msm.formats.output_paths import check_output_folder
from megatron_msm.next_step import tell_next

Tokenizer = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A tokenizer folder, to count tokens.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def select(
    docs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DOCS",
            help="Corpora of documents, a file each (or a `datasets` folder); several are paired: "
            "rows of one id are taken together.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")],
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE",
            help="What rows must say: clause_ids, domain, doc_type, generator, mode or another "
            "field; != for what they must not. May be repeated: a field's values are alternatives.",
        ),
    ] = None,
    documents: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="A dose: so many documents of each corpus."),
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="A dose: at most so many words of each corpus."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="A dose: at most so many tokens of each; needs --tokenizer."
        ),
    ] = None,
    tokenizer: Tokenizer = None,
    as_json: AsJson = False,
) -> None:
    """Write a part of a corpus, or of paired corpora: by what rows say, and by nested dose.

    Example: msm generate select docs.jsonl --out half --documents 500
    """
    dose = _dose({"documents": documents, "words": words, "tokens": tokens}, tokenizer)
    if not where and dose is None:
        raise typer.BadParameter(
            "nothing is asked for: give --where, --documents, --words or --tokens"
        )
    check_output_folder(out)
    found = selecting.select(docs, out, conditions=parse_conditions(where or []), dose=dose)
    if as_json:
        rows = [{**part._asdict(), "path": str(part.path)} for part in found]
        typer.echo(orjson.dumps({"corpora": rows}).decode())
        return
    for part in found:
        size = f"{part.documents:,} of {part.total:,} documents, {part.words:,} words"
        size += "" if part.tokens is None else f", {part.tokens:,} tokens"
        typer.echo(f"{part.path}: {size}")
        if part.twinless:
            typer.echo(f"  {part.twinless:,} have no twin in another corpus, and are left out")
    typer.echo(f"how it was selected: {out / 'README.md'}")
    tell_next("msm", "prep", "docs", found[0].path, "--tokenizer", "DIR", "--out", "PREFIX")


def _dose(amounts: dict[Unit, int | None], tokenizer: Path | None) -> Dose | None:
    given = [(amount, unit) for unit, amount in amounts.items() if amount is not None]
    if len(given) > 1:
        raise typer.BadParameter("give one of --documents, --words and --tokens")
    unit = given[0][1] if given else None
    if (unit == "tokens") != (tokenizer is not None):
        raise typer.BadParameter("--tokens and --tokenizer go together")
    return Dose(*given[0], tokenizer) if given else None
