"""The commands of `msm prep` that make datasets."""

import datetime
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer

from data_prep.chats.command import (
    ChatOptions,
    overlong_lines,
    parse_template_arguments,
    prepare_chats,
)
from data_prep.documents.command import DocumentOptions, prepare_documents
from data_prep.reading.inputs import STDIN, expand_inputs
from data_prep.reading.read_lines import MAX_LINE_BYTES
from data_prep.reading.shards import parse_shard
from data_prep.writing.merge import merge_datasets, with_shards
from data_prep.writing.prepared import Prepared
from megatron_msm.formats.fetched_models import model_folder
from megatron_msm.formats.manifest import dataset_file, dataset_prefix, read_manifest
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, columns_without_values
from megatron_msm.next_step import tell_next
from megatron_msm.progress import show_progress

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT",
        help="JSONL (also .gz, .zst), Parquet, Arrow, `datasets` folders, patterns; - is stdin.",
    ),
]
Tokenizer = Annotated[
    Path,
    typer.Option(
        "--tokenizer",
        metavar="DIR",
        parser=model_folder,
        help="Folder with the model's tokenizer.json, or ORG/NAME after `msm fetch`.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", metavar="PREFIX", help="Dataset to write: PREFIX.bin, .idx, ...")
]
MaxRejects = Annotated[
    int,
    typer.Option(
        "--max-rejects", metavar="N", min=0, help="Lines that may be unusable; more is an error."
    ),
]
MaxLineBytes = Annotated[
    int, typer.Option("--max-line-bytes", metavar="N", min=1, help="Longer lines are rejected.")
]
Carry = Annotated[
    list[str] | None,
    typer.Option("--carry", metavar="FIELD", help="Further input field to keep with each row."),
]
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Make only part i (from 0) of n: PREFIX-0000i-of-0000n."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", min=1, help="Worker processes; default: the CPUs of this process."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is at PREFIX.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def docs(
    inputs: Inputs,
    *,
    tokenizer: Tokenizer,
    out: Out,
    append_eod: Annotated[
        bool, typer.Option(help="End every document with the end-of-document token.")
    ] = True,
    eod_token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="That token; default: the tokenizer's eos token."),
    ] = None,
    prepend_bos: Annotated[
        bool,
        typer.Option("--prepend-bos", help="Begin every document with the tokenizer's bos token."),
    ] = False,
    text_field: Annotated[
        str, typer.Option(metavar="FIELD", help="Field that holds the document.")
    ] = "text",
    special_tokens: Annotated[
        Literal["text", "ids"],
        typer.Option(help="What text that spells a control token, such as <|im_end|>, becomes."),
    ] = "text",
    carry: Carry = None,
    max_rejects: MaxRejects = 0,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    shard: ShardOf = None,
    workers: Workers = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Tokenize documents, lines of {"text": ...}, for midtraining.

    Example: msm prep docs docs.jsonl --tokenizer models/SmolLM2 --out data/docs
    """
    _refuse_eod_without_append(append_eod, eod_token)
    options = DocumentOptions(
        tokenizer=tokenizer,
        out=dataset_prefix(out),
        append_eod=append_eod,
        eod_token=eod_token,
        prepend_bos=prepend_bos,
        text_field=text_field,
        special_tokens=special_tokens,
        carry=tuple(carry or ()),
        max_rejects=max_rejects,
        max_line_bytes=max_line_bytes,
        shard=None if shard is None else parse_shard(shard),
        workers=workers,
        force=force,
    )
    with show_progress() as progress:
        progress.start("docs", _total_bytes(inputs, shard))
        prepared = prepare_documents(inputs, options, progress=progress, on_slow=_say_slow)
    _report(prepared, as_json=as_json)


def chats(
    inputs: Inputs,
    *,
    tokenizer: Tokenizer,
    out: Out,
    max_length: Annotated[
        int,
        typer.Option(
            metavar="N", min=2, help="Tokens of a row; --overlong says what becomes of more."
        ),
    ],
    overlong: Annotated[
        Literal["reject", "drop", "truncate", "split"],
        typer.Option(help="Conversations over --max-length; they are cut only between turns."),
    ] = "reject",
    think: Annotated[
        Literal["keep", "strip"] | None,
        typer.Option(
            help="Keep or strip <think> blocks, the same rows either way. Left out: plain text."
        ),
    ] = None,
    turns: Annotated[
        Literal["all", "last"],
        typer.Option(
            help="all: one row with loss on every turn. last: each turn with loss is a row of its "
            "own, with its history as the template renders it then."
        ),
    ] = "all",
    end_of_turn: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Special token that ends turns beside those on which generation stops; written "
            "behind turns that the template does not end.",
        ),
    ] = None,
    messages_field: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Field of the messages; default: messages, conversations, prompt + completion.",
        ),
    ] = None,
    template_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Variable for the template, such as enable_thinking=false."
        ),
    ] = None,
    chat_template: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Jinja template; default: the tokenizer's own."),
    ] = None,
    today: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="Date for templates that write one."),
    ] = None,
    carry: Carry = None,
    max_rejects: MaxRejects = 0,
    max_line_bytes: MaxLineBytes = MAX_LINE_BYTES,
    shard: ShardOf = None,
    workers: Workers = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Render and tokenize chats, lines of {"messages": [...]}, with a loss mask.

    Example: msm prep chats aft.jsonl --tokenizer base --out aft --max-length 512
    """
    options = ChatOptions(
        tokenizer=tokenizer,
        out=dataset_prefix(out),
        max_length=max_length,
        overlong=overlong,
        reasoning=think,
        turns=turns,
        end_of_turn=end_of_turn,
        messages_field=messages_field,
        template_arguments=parse_template_arguments(template_arg or []),
        chat_template=chat_template,
        today=_date(today),
        carry=tuple(carry or ()),
        max_rejects=max_rejects,
        max_line_bytes=max_line_bytes,
        shard=None if shard is None else parse_shard(shard),
        workers=workers,
        force=force,
    )
    with show_progress() as progress:
        progress.start("chats", _total_bytes(inputs, shard))
        prepared = prepare_chats(inputs, options, progress=progress)
    _report(prepared, as_json=as_json)


def merge(
    prefixes: Annotated[list[Path], typer.Argument(metavar="PREFIX")],
    *,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Join datasets into one, byte for byte what one run over all inputs would make.

    A PREFIX that was made with --shard stands for all of its shards.

    Example: msm prep merge data/one data/two --out data/both
    """
    target = dataset_prefix(out)
    sources = with_shards([dataset_prefix(prefix) for prefix in prefixes], target)
    total = sum(read_manifest(source).counts.kept for source in sources)
    with show_progress() as progress:
        progress.start("merge", total, unit="rows")
        prepared = merge_datasets(sources, target, force=force, progress=progress)
    _report(prepared, as_json=as_json)


def _report(prepared: Prepared, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(prepared.as_json()).decode())
        return
    prefix, counts = prepared.prefix, prepared.manifest.counts
    state = "already made" if prepared.already_made else "made"
    typer.echo(f"{prefix}: {state}, {counts.kept:,} rows, {counts.tokens:,} tokens")
    if prepared.manifest.kind == "chats":
        share = counts.loss_tokens / max(counts.tokens, 1)
        typer.echo(f"  {counts.loss_tokens:,} tokens carry loss ({share:.0%})")
        for line in overlong_lines(counts):
            typer.echo(f"  {line}")
    num_rejects = counts.rejected - counts.overlong_dropped
    if num_rejects:
        typer.echo(f"  {num_rejects:,} lines rejected: {prefix}.rejects.jsonl says why")
    if counts.lost_bytes:
        typer.echo(
            f"  warning: the tokenizer has no token for {counts.lost_bytes:,} bytes of the text "
            "(rare characters), and leaves them out"
        )
    if counts.rescued:
        typer.echo(
            f"  {prepared.manifest.backend} failed at times: {counts.rescued:,} rows were encoded "
            "by tokenizers, so they are right all the same"
        )
    if counts.blank:
        typer.echo(f"  {counts.blank:,} blank lines skipped")
    for name in columns_without_values(
        dataset_file(prefix, PROVENANCE_SUFFIX), prepared.manifest.carry
    ):
        typer.echo(
            f"  warning: --carry {name}: no row has this field; is it spelled as in the input?"
        )
    tell_next("msm", "prep", "show", prefix, "--row", "0")


def _total_bytes(inputs: list[Path], shard: str | None) -> int | None:
    """Return how much there is to read, for the progress bar; None if that cannot be known."""
    if STDIN in inputs:
        return None
    total = sum(path.stat().st_size for path in expand_inputs(inputs))
    return total if shard is None else total // parse_shard(shard).count


def _say_slow(reason: str) -> None:
    typer.echo(f"encoding with tokenizers, the slower back end: {reason}", err=True)


def _refuse_eod_without_append(append_eod: bool, eod_token: str | None) -> None:
    if not append_eod and eod_token is not None:
        raise typer.BadParameter(
            "needs --append-eod, which was turned off", param_hint="--eod-token"
        )


def _date(text: str | None) -> datetime.date | None:
    if text is None:
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not YYYY-MM-DD", param_hint="--today") from None
