"""`msm generate balance`: what two arms differ in, on all of their documents, in seconds.

A part of `msm prep health`, which also tells whether a classifier can tell the arms apart and what
they cost the base model.
"""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.cleaning.word_ngrams import WordNgrams
from data_prep.health.arm_balance import larger_to_smaller, measure_balance
from data_prep.health.command import arm_names, show_report
from data_prep.health.composition import measure_composition, measure_size
from data_prep.health.corpus import Corpus, read_documents
from data_prep.health.figures import CorpusHealth, Figure, HealthReport, Section
from data_prep.health.values import load_values
from data_prep.tokenizing.encode import token_counts
from megatron_msm.formats.output_paths import check_output_file
from megatron_msm.progress import SILENT

_MOST = 20_000


def balance(
    one: Annotated[Path, typer.Argument(metavar="ONE", help="An arm: a corpus of documents.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The other arm.")],
    *,
    values: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.yaml",
            help="Words of an arm's value, which are no difference; may be repeated.",
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Count tokens too, by this tokenizer.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the report as one page.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object.")
    ] = False,
) -> None:
    """Name what two arms differ in: size, lengths, genres, domains, clauses, names, phrases.

    Example: msm generate balance docs.jsonl others.jsonl
    """
    check_output_file(html)
    numbers = WordNgrams()
    given = [load_values(path) for path in values or []]
    corpora = [
        Corpus(
            name,
            read_documents([path], text_field="text", progress=SILENT),
            most=_MOST,
            numbers=numbers,
        )
        for name, path in zip(arm_names([one], [other]), (one, other), strict=True)
    ]
    health = [
        CorpusHealth(
            corpus.name, [str(path)], [measure_size(corpus), measure_composition(corpus, None)]
        )
        for corpus, path in zip(corpora, (one, other), strict=True)
    ]
    contrast = [measure_balance(corpora[0], corpora[1], given)]
    if tokenizer is not None:
        contrast.append(_tokens(corpora, tokenizer))
    show_report(HealthReport(health, contrast), [], html=html, as_json=as_json)


def _tokens(corpora: list[Corpus], tokenizer: Path) -> Section:
    texts = [[document.text for document in corpus.documents] for corpus in corpora]
    amounts = [sum(token_counts(tokenizer, own)) for own in texts]
    note = " and ".join(f"{amount:,}" for amount in amounts)
    ratio = larger_to_smaller(amounts)
    return Section(
        "Tokens", [Figure("token_ratio", "tokens, larger arm to smaller", ratio, "number", note)]
    )
