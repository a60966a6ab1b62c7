"""The commands of `msm prep` that plan and look at finished datasets."""

from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer
from rich.console import Console

from data_prep.chats.origin_table import print_origin
from data_prep.cleaning.contamination import describe_contamination, find_contamination
from data_prep.cleaning.corpus import corpus_size
from data_prep.cleaning.dedup import (
    check_filter,
    describe_duplicates,
    find_duplicates,
    write_drops,
    write_filtered,
)
from data_prep.cleaning.subset import write_subset
from data_prep.inspecting.check import check_dataset, require_ok
from data_prep.inspecting.pack import describe_packed, pack_dataset, rows_of_sequence
from data_prep.inspecting.show import print_row, print_token, read_row, row_at
from data_prep.inspecting.stats import describe_stats, read_stats, write_histogram
from data_prep.inspecting.step_rows import describe_step, read_step
from megatron_msm.config.data import PackingConfig
from megatron_msm.formats.json_types import JsonRow
from megatron_msm.formats.manifest import dataset_prefix, read_manifest
from megatron_msm.formats.output_paths import check_output_file
from megatron_msm.next_step import tell_next
from megatron_msm.progress import show_progress

Prefix = Annotated[Path, typer.Argument(metavar="PREFIX")]
Corpus = Annotated[
    Path, typer.Argument(metavar="CORPUS", help="A JSONL file, or the PREFIX of a dataset.")
]
DatasetTokenizer = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer", metavar="DIR", help="Of a dataset whose tokenizer is not where it was."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def show(
    prefix: Annotated[Path, typer.Argument(metavar="PREFIX")],
    *,
    row: Annotated[
        int, typer.Option(metavar="N", help="Row to show; negative ones count from the end.")
    ] = 0,
    token: Annotated[
        int | None,
        typer.Option(metavar="N", help="Show this token of the row, and the clause behind it."),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(metavar="N", help="Show the token at this offset in PREFIX.bin, and its row."),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Tokenizer; default: where the dataset was made with it."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write what is shown as a page of its own."),
    ] = None,
) -> None:
    """Show a row token by token: what carries loss, and where it comes from.

    Example: msm prep show data/chats --row 0
    """
    check_output_file(html)
    prefix, console = dataset_prefix(prefix), Console(highlight=False, record=html is not None)
    if at is not None:
        row, token = row_at(prefix, at)
    view = read_row(prefix, row, tokenizer=tokenizer)
    if token is not None:
        print_token(view, token, console)
    print_row(view, console)
    if view.manifest.kind == "chats":
        print_origin(view, console)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(console.export_html(), encoding="utf-8")
        typer.echo(f"written: {html}")
    tell_next("msm", "prep", "check", prefix)


def check(
    prefix: Annotated[Path, typer.Argument(metavar="PREFIX")], *, as_json: AsJson = False
) -> None:
    """Verify a dataset: hashes, counts, and that rows, masks and provenance are aligned.

    Example: msm prep check data/docs
    """
    prefix = dataset_prefix(prefix)
    with show_progress() as progress:
        findings = check_dataset(prefix, progress=progress)
    if as_json:
        is_ok = all(finding.is_ok for finding in findings)
        checks = [finding._asdict() for finding in findings]
        sha256 = read_manifest(prefix).sha256
        _print_json({"prefix": str(prefix), "is_ok": is_ok, "sha256": sha256, "checks": checks})
    else:
        for finding in findings:
            mark = "ok    " if finding.is_ok else "FAILED"
            typer.echo(f"{mark} {finding.name}: {finding.detail}")
    require_ok(prefix, findings)
    if not as_json:
        tell_next("msm", "prep", "stats", prefix)


def pack(
    prefix: Prefix,
    *,
    seq_length: Annotated[
        int, typer.Option(metavar="N", min=2, help="Positions of a packed sequence.")
    ],
    strategy: Annotated[
        Literal["best-fit", "first-fit-shuffle", "concatenate"],
        typer.Option(help="concatenate cuts documents wherever a sequence ends."),
    ] = "best-fit",
    max_documents: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Most documents of one sequence.")
    ] = None,
    align: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Pad each document to a multiple of this many positions."
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Which documents share a sequence.")
    ] = 0,
    show: Annotated[
        int | None,
        typer.Option(metavar="N", help="List what this packed sequence holds, counted from 0."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pack a dataset and store the packing beside it.

    Training finds it by the dataset's content and the same settings under data.packing.

    Example: msm prep pack data/docs --seq-length 4096
    """
    packing = PackingConfig(strategy=strategy, max_documents=max_documents, align=align, seed=seed)
    prefix = dataset_prefix(prefix)
    packed = pack_dataset(prefix, seq_length, packing)
    shown = [] if show is None else rows_of_sequence(prefix, packed.packing_index, show)
    _print([*describe_packed(packed), *shown], packed.as_json(), as_json=as_json)
    if not as_json:
        tell_next("msm", "train", "RUN.yaml", "--plan-only")


def rows(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run's configuration.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As given to `msm train`.")
    ] = None,
    *,
    phase: Annotated[str, typer.Option(metavar="NAME", help="The phase's name.")],
    step: Annotated[
        int, typer.Option(metavar="N", help="Optimizer step, counted from 1 as in metrics.jsonl.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show which rows an optimizer step of a run saw, and where they come from.

    Example: msm prep rows run.yaml --phase sft --step 12
    """
    found = read_step(run_file, overrides or [], phase=phase, step=step)
    content: JsonRow = {"phase": phase, "step": step, "rows": [row.as_json() for row in found]}
    _print(list(describe_step(found)), content, as_json=as_json)
    if not as_json and found:
        tell_next("msm", "prep", "show", "PREFIX", "--row", "ROW", why="a row, token by token")


def stats(
    prefix: Prefix,
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Total by this provenance field; may be repeated."),
    ] = None,
    seq_length: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=2, help="Tell how full packing is at this length."),
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the histogram of lengths.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how long the rows of a dataset are, and totals by what they are about.

    Example: msm prep stats data/docs --by domain --seq-length 4096
    """
    check_output_file(png)
    found = read_stats(dataset_prefix(prefix), by=by or [], seq_lengths=seq_length or [])
    if png is not None:
        write_histogram(found, png)
    _print(list(describe_stats(found)), found.as_json(), as_json=as_json)
    if not as_json:
        tell_next("msm", "prep", "pack", dataset_prefix(prefix), "--seq-length", "N")


def contamination(
    corpus: Corpus,
    *,
    against: Annotated[
        Path, typer.Option(metavar="ITEMS", help="Evaluation items: JSONL, or a dataset's PREFIX.")
    ],
    words: Annotated[
        int, typer.Option(metavar="N", min=3, help="Words of a run that is looked for.")
    ] = 8,
    overlap: Annotated[
        float,
        typer.Option(metavar="X", min=0.01, max=1, help="Share of an item's runs that counts."),
    ] = 0.5,
    show: Annotated[
        int, typer.Option(metavar="N", min=0, help="Rows to list, the worst first.")
    ] = 10,
    max_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Exit with 1 if more rows than this reach --overlap."
        ),
    ] = None,
    tokenizer: DatasetTokenizer = None,
    as_json: AsJson = False,
) -> None:
    """Find rows of a corpus that repeat evaluation items.

    Example: msm prep contamination docs.jsonl --against items.jsonl
    """
    total, unit = corpus_size(corpus)
    with show_progress() as progress:
        progress.start("contamination", total, unit=unit)
        found = find_contamination(
            corpus,
            against,
            size=words,
            overlap=overlap,
            num_worst=show,
            tokenizer=tokenizer,
            progress=progress,
        )
    content: JsonRow = {
        "rows": found.num_rows,
        "items": found.num_items,
        "items_too_short": found.too_short,
        "rows_above": found.rows_above,
        "items_above": len(found.items_above),
        "worst": [match.as_json() for match in found.worst],
    }
    _print(list(describe_contamination(found, overlap=overlap)), content, as_json=as_json)
    if not as_json:
        tell_next("msm", "prep", "dedup", corpus, "--out", "KEPT.jsonl")
    if max_rows is not None and found.rows_above > max_rows:
        raise typer.Exit(1)


def dedup(
    corpus: Corpus,
    *,
    threshold: Annotated[
        float,
        typer.Option(
            metavar="X", min=0.1, max=1, help="Jaccard similarity from which a row is dropped."
        ),
    ] = 0.7,
    words: Annotated[
        int, typer.Option(metavar="N", min=1, help="Words of a run that is compared.")
    ] = 5,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the JSONL without the duplicates.")
    ] = None,
    drops: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows to drop, as JSONL.")
    ] = None,
    tokenizer: DatasetTokenizer = None,
    as_json: AsJson = False,
) -> None:
    """Find near duplicates, and write what is left.

    Example: msm prep dedup docs.jsonl --out kept.jsonl
    """
    for path in (out, drops):
        check_output_file(path)
    if out is not None:
        check_filter(corpus, out)
    total, unit = corpus_size(corpus)
    with show_progress() as progress:
        progress.start("dedup", total, unit=unit)
        found = find_duplicates(
            corpus, threshold=threshold, size=words, tokenizer=tokenizer, progress=progress
        )
    if out is not None:
        write_filtered(corpus, out, found)
    if drops is not None:
        write_drops(drops, found)
    content = {
        "rows": found.num_rows,
        "dropped": len(found.dropped),
        "kept": found.num_rows - len(found.dropped),
        "clusters": len(found.clusters),
    }
    _print(list(describe_duplicates(found)), content, as_json=as_json)
    if not as_json:
        kept = out or "KEPT.jsonl"
        tell_next("msm", "prep", "docs", kept, "--tokenizer", "DIR", "--out", "PREFIX")


def subset(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="JSONL (also .gz, .zst), Parquet, Arrow, `datasets` folders."
        ),
    ],
    *,
    share: Annotated[
        float, typer.Option(metavar="X", min=0, max=1, help="Share of the rows, such as 0.25.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.jsonl", help="The rows to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a share of a corpus's rows; a smaller share is part of every larger one.

    Example: msm prep subset docs.jsonl --share 0.25 --out quarter.jsonl
    """
    check_output_file(out)
    taken = write_subset(sources, out, share=share)
    content: JsonRow = {"path": str(out), "rows": taken.rows, "of": taken.of}
    _print([f"{out}: {taken.rows:,} of {taken.of:,} rows"], content, as_json=as_json)
    if not as_json:
        tell_next("msm", "prep", "docs", out, "--tokenizer", "DIR", "--out", "PREFIX")


def _print(lines: list[str], content: JsonRow, *, as_json: bool) -> None:
    if as_json:
        _print_json(content)
        return
    for line in lines:
        typer.echo(line)


def _print_json(content: JsonRow) -> None:
    typer.echo(orjson.dumps(content).decode())
