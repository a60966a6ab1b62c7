"""Corpora of documents read side by side: rows of one id in several of them are twins."""

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from data_prep.reading.inputs import expand_inputs
from data_prep.reading.parse_lines import parse_documents
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Document
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.manifest import InputEntry
from megatron_msm.formats.rejects import Reject


class Row(NamedTuple):
    """A document with everything that its line says."""

    raw: bytes
    """The line, without its end."""
    text: str
    fields: dict[str, Any]


class ReadCorpus(NamedTuple):
    """A corpus of documents."""

    name: str
    sources: Sequence[InputEntry]
    rows: dict[str, Row]
    """By id, in the order of the file."""


def read_corpora(inputs: Sequence[Path]) -> list[ReadCorpus]:
    """Read corpora: each file is one, and so is each `datasets` folder.

    Raises:
        DataFormatError: A file cannot be read, or a row is no document, or has no id of its own.
        ConfigError: Two corpora have one name.
    """
    groups = [
        (given.name, [*expand_inputs([given])])
        if given.is_dir()
        else (path.name.split(".")[0], [path])
        for given in inputs
        for path in ([given] if given.is_dir() else expand_inputs([given]))
    ]
    names = [name for name, _ in groups]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(
            f"two corpora are called {twice!r}, after their files, and would be written to one. "
            "Copy or link one of them under another name."
        )
    return [_read(name, paths) for name, paths in groups]


def shared_ids(corpora: Sequence[ReadCorpus]) -> list[str]:
    """Return the ids that all corpora have, in the first one's order.

    Raises:
        DataFormatError: There is none.
    """
    first, *others = corpora
    shared = [name for name in first.rows if all(name in other.rows for other in others)]
    if not shared:
        names = ", ".join(corpus.name for corpus in corpora)
        raise DataFormatError(
            f"{names}: no id is in all of them, so their rows are no twins. Give paired corpora, "
            "or take them one at a time."
        )
    return shared


def _read(name: str, paths: Sequence[Path]) -> ReadCorpus:
    reader = LineReader(paths)
    rows: dict[str, Row] = {}
    for item in parse_documents(reader):
        if isinstance(item, Reject):
            raise DataFormatError(f"{item.file}:{item.line}: {item.reason}. Mend the line.")
        if isinstance(item, Document):
            where = f"{item.line.file}:{item.line.number}"
            key = item.carried.id
            if key is None:
                raise DataFormatError(
                    f"{where}: no id to tell rows apart by. `msm generate import` gives each one."
                )
            if key in rows:
                raise DataFormatError(
                    f"{where}: id {key!r} is that of an earlier row. Every row needs its own."
                )
            rows[key] = Row(item.line.raw.rstrip(b"\r\n"), item.text, _fields(item.line.raw))
    if not rows:
        raise DataFormatError(f"{', '.join(map(str, paths))}: no documents.")
    return ReadCorpus(name, reader.entries, rows)


def _fields(raw: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(raw.removeprefix(codecs.BOM_UTF8))
    return fields
