"""Corpora that others made, as rows of ours: documents or chats with ids, provenance and a card.

Published corpora keep little (`{text, domain}`, `{messages}`); what a row has is kept, and what it
lacks and can be given (an id, the spec's name) is given. Hub names are the user's to fetch first:
nothing here opens a network.
"""

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from data_prep.reading.inputs import expand_inputs
from data_prep.reading.parse_lines import parse_chats, parse_documents
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Blank, Carried, Chat, Document
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_text, write_bytes_atomic, write_text_atomic
from megatron_msm.formats.rejects import Reject

Kind = Literal["documents", "chats"]
_CONTENT: dict[Kind, tuple[str, ...]] = {
    "documents": ("text",),
    "chats": ("messages", "conversations", "prompt", "completion", "system", "tools"),
}
"""Fields that become the row's content, whatever form they had."""


class Imported(NamedTuple):
    """What an import made."""

    rows: int
    blank: int
    rejects: list[Reject]
    twice: int
    """Rows whose content is that of an earlier one: they keep their order, under other ids."""


def import_rows(
    sources: Sequence[Path],
    out: Path,
    *,
    kind: Kind,
    spec_id: str | None,
    max_rejects: int,
    licence: str | None = None,
) -> Imported:
    """Write rows of others as JSONL with ids and provenance, and a card beside it.

    Args:
        sources: JSONL (also .gz, .zst), Parquet, Arrow, `datasets` folders, patterns.
        out: The file to write; its card is OUT.md.
        kind: What the rows are.
        spec_id: The spec they are about, for rows that do not say.
        max_rejects: Rows that may be unusable.
        licence: For the card.

    Raises:
        DataFormatError: A source cannot be read, or too many rows are unusable.
    """
    reader = LineReader(expand_inputs(sources))
    items = parse_documents(reader) if kind == "documents" else parse_chats(reader)
    rows: list[bytes] = []
    seen: dict[str, int] = {}
    rejects: list[Reject] = []
    blank = 0
    for item in items:
        if isinstance(item, Reject):
            rejects.append(item)
        elif isinstance(item, Blank):
            blank += 1
        else:
            content = _content(item)
            digest = sha256_of_text(orjson.dumps(content).decode())[:16]
            seen[digest] = seen.get(digest, 0) + 1
            name = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
            row = {**_known(item.carried, name, spec_id), **_others(item.line.raw, kind), **content}
            rows.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    if len(rejects) > max_rejects:
        first = rejects[0]
        raise DataFormatError(
            f"{first.file}:{first.line}: {first.reason}. {len(rejects):,} rows are "
            f"unusable and {max_rejects:,} are allowed. Mend them, or raise --max-rejects."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(out, b"".join(rows))
    made = Imported(len(rows), blank, rejects, len(rows) - len(seen))
    card = _card(reader, out, kind=kind, made=made, spec_id=spec_id, licence=licence)
    write_text_atomic(out.with_name(out.name + ".md"), card)
    return made


def _content(item: Document | Chat) -> dict[str, Any]:
    if isinstance(item, Document):
        return {"text": item.text}
    chat: dict[str, Any] = {"messages": item.messages}
    if item.tools is not None:
        chat["tools"] = item.tools
    if item.trained != [message["role"] == "assistant" for message in item.messages]:
        chat["messages"] = [
            {**message, "loss": trained} if message["role"] == "assistant" else message
            for message, trained in zip(item.messages, item.trained, strict=True)
        ]
    return chat


def _known(carried: Carried, name: str, spec_id: str | None) -> dict[str, Any]:
    known = {
        "id": carried.id or name,
        "spec_id": carried.spec_id or spec_id,
        "clause_ids": carried.clause_ids,
        "domain": carried.domain,
        "subdomain": carried.subdomain,
        "doc_type": carried.doc_type,
        "idea": carried.idea,
        "role": carried.role or "train",
    }
    return {key: value for key, value in known.items() if value is not None}


def _others(raw: bytes, kind: Kind) -> dict[str, Any]:
    """Return what else a row says about itself, such as who wrote it."""
    read = {*Carried._fields, *_CONTENT[kind]}
    return {
        key: value
        for key, value in orjson.loads(raw.removeprefix(codecs.BOM_UTF8)).items()
        if key not in read and value is not None
    }


def _card(
    reader: LineReader,
    out: Path,
    *,
    kind: Kind,
    made: Imported,
    spec_id: str | None,
    licence: str | None,
) -> str:
    lines = [
        f"# {out.name}: {made.rows:,} {kind} imported",
        "",
        f"About the spec: {spec_id or 'as the rows say'}. "
        f"Licence: {licence or 'that of the sources; not stated here'}.",
        f"Blank lines: {made.blank:,}. Unusable: {len(made.rejects):,}. "
        f"Of the same content as an earlier row: {made.twice:,}.",
        "",
        "| source | bytes | SHA-256 |",
        "|---|---|---|",
    ]
    lines += [f"| {entry.path} | {entry.bytes:,} | {entry.sha256} |" for entry in reader.entries]
    return "\n".join(lines) + "\n"
