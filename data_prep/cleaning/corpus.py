"""Texts to compare: the lines of a file (whatever `msm prep docs` reads), or a dataset's rows.

Of a line the text is `text`, or the contents of `messages`, or else every text in it, as evaluation
items name their parts as they like. Of a dataset it is the decoded row, control tokens left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

from data_prep.inspecting.show import tokenizer_of_dataset
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Line
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.indexed_dataset import IndexedDataset
from megatron_msm.formats.json_types import JsonObject, JsonValue
from megatron_msm.formats.manifest import dataset_file, dataset_prefix, manifest_path, read_manifest
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_provenance
from megatron_msm.formats.tokenizer_files import load_tokenizer
from megatron_msm.progress import BYTES

_TEXTUAL = (".jsonl", ".json", ".ndjson", ".gz", ".zst", ".parquet", ".arrow")


def corpus_size(path: Path) -> tuple[int, str]:
    """Return how much there is to read, and its unit: bytes of a file, or rows of a dataset."""
    if not is_dataset(path):
        return (path.stat().st_size if path.is_file() else 0), BYTES
    return read_manifest(dataset_prefix(path)).counts.kept, "rows"


class CorpusText(NamedTuple):
    """One text and where it is from."""

    number: int
    """Its line or row, counted from 0."""
    where: str
    """As a message names it: FILE:LINE, or PREFIX row N."""
    text: str
    about: JsonObject
    """What is known about it: id, spec id, clause ids, domain."""
    amount: int
    """What reading it advanced, in the unit of `corpus_size`."""


def is_dataset(path: Path) -> bool:
    """Whether a path names a dataset rather than a JSONL file."""
    if path.suffix in _TEXTUAL:
        return False
    return manifest_path(dataset_prefix(path)).exists() or not path.is_file()


def read_corpus(path: Path, *, tokenizer: Path | None = None) -> Iterator[CorpusText]:
    """Yield the texts of a JSONL file or a dataset.

    Raises:
        DataFormatError: There is neither, or a line is not JSON.
    """
    if is_dataset(path):
        yield from _rows(dataset_prefix(path), tokenizer)
    else:
        yield from _lines(path)


def _rows(prefix: Path, tokenizer: Path | None) -> Iterator[CorpusText]:
    manifest = read_manifest(prefix)
    loaded = load_tokenizer(
        tokenizer_of_dataset(prefix, manifest, tokenizer), control_tokens_as_text=False
    )
    tokens = IndexedDataset(prefix)
    for row, source in enumerate(read_provenance(dataset_file(prefix, PROVENANCE_SUFFIX))):
        text = loaded.decode(tokens[row].tolist(), skip_special_tokens=True)
        where = f"{prefix} row {row} ({source.source_file}:{source.source_line})"
        yield CorpusText(row, where, text, _about(source._asdict()), amount=1)


def _lines(path: Path) -> Iterator[CorpusText]:
    for index, line in enumerate(LineReader([path])):
        if line.raw.strip():
            yield _line(line, index)


def _line(line: Line, index: int) -> CorpusText:
    where = f"{line.file}:{line.number}"
    if line.over_limit is not None or line.unreadable is not None:
        why = line.unreadable or f"longer than {line.over_limit} bytes"
        raise DataFormatError(f"{where}: {why}. Repair the line, or leave it out.")
    try:
        value: JsonValue = orjson.loads(line.raw)
    except orjson.JSONDecodeError as error:
        raise DataFormatError(
            f"{where}: not valid JSON ({error.msg}). Give JSONL, or the PREFIX of a dataset."
        ) from None
    if not isinstance(value, dict):
        raise DataFormatError(f"{where}: not a JSON object. Give one object a line.")
    if "text" in value and not isinstance(value["text"], str):
        raise DataFormatError(f"{where}: field 'text' is not a text. Repair the line.")
    return CorpusText(index, where, _text_of(value), _about(value), amount=len(line.raw))


def _text_of(value: JsonObject) -> str:
    if "text" in value:
        return str(value["text"])
    messages = value.get("messages")
    if isinstance(messages, list):
        contents = [m.get("content") for m in messages if isinstance(m, dict)]
        return "\n".join(content for content in contents if isinstance(content, str))
    named = {"id", "split", "role", "tier", "label", "domain", "spec_id"}
    return "\n".join(_texts({key: part for key, part in value.items() if key not in named}))


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            if key != "label":
                yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _about(value: JsonObject) -> JsonObject:
    names = ("id", "spec_id", "clause_ids", "domain", "doc_type", "role")
    return {name: value[name] for name in names if value.get(name) not in (None, "", [])}
