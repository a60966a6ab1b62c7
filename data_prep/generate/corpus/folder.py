"""A run's dataset folder: what `datasets.load_dataset` and `msm prep` read, with a card.

documents/NAME.jsonl, .parquet      rows of a corpus
chats/chats.jsonl, .parquet         chats without reasoning
chats/reasoning.jsonl, .parquet     the same rows with it
rejects/NAME.jsonl                  what was refused, by which gate and why
summary.json, README.md             counts, costs, settings; the card
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.generate.chat_pipeline import chat_rows
from data_prep.generate.corpus.card import dataset_card
from data_prep.generate.corpus.rows import Corpus
from data_prep.generate.settings import GenerateConfig
from megatron_msm.formats.files import (
    tmp_path,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)

SUMMARY_FILE = "summary.json"
_TEXTS = pa.list_(pa.string())
_TYPES = {
    "clause_ids": _TEXTS,
    "assertions": _TEXTS,
    "states_value": pa.bool_(),
    "gives_reason": pa.bool_(),
    "messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
}
"""Types of columns that are no text."""


class Written(NamedTuple):
    """A file of rows."""

    path: Path
    rows: int


def write_documents(folder: Path, corpora: Sequence[Corpus]) -> list[Written]:
    """Write every corpus of documents, and what was refused."""
    written = []
    for corpus in corpora:
        written.append(_write_rows(folder / "documents" / corpus.name, corpus.rows))
        _write_rejects(folder, f"documents-{corpus.name}", corpus)
    return written


def write_chats(folder: Path, corpus: Corpus) -> list[Written]:
    """Write the chats with and without reasoning, and what was refused."""
    _write_rejects(folder, "chats", corpus)
    return [
        _write_rows(folder / "chats" / "chats", chat_rows(corpus, with_reasoning=False)),
        _write_rows(folder / "chats" / "reasoning", chat_rows(corpus, with_reasoning=True)),
    ]


def write_summary(folder: Path, config: GenerateConfig, summary: Mapping[str, Any]) -> None:
    """Write the summary and the card of everything that the folder holds."""
    write_json_atomic(folder / SUMMARY_FILE, summary)
    write_text_atomic(folder / "README.md", dataset_card(folder, config, summary))


def _write_rows(stem: Path, rows: Sequence[Mapping[str, Any]]) -> Written:
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_name(stem.name + ".jsonl")
    lines = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows]
    write_bytes_atomic(path, b"".join(lines))
    table = stem.with_name(stem.name + ".parquet")
    pq.write_table(_table(rows), tmp_path(table), compression="zstd")
    tmp_path(table).replace(table)
    return Written(path, len(rows))


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the rows with types that do not depend on them: a list may be empty in all of them."""
    columns = dict.fromkeys(key for row in rows for key in row) or ("id", "text")
    schema = pa.schema([(name, _TYPES.get(name, pa.string())) for name in columns])
    return pa.Table.from_pylist(list(rows), schema)


def _write_rejects(folder: Path, name: str, corpus: Corpus) -> None:
    (folder / "rejects").mkdir(parents=True, exist_ok=True)
    lines = [
        orjson.dumps(reject.as_json(), option=orjson.OPT_APPEND_NEWLINE)
        for reject in corpus.rejects
    ]
    write_bytes_atomic(folder / "rejects" / f"{name}.jsonl", b"".join(lines))
