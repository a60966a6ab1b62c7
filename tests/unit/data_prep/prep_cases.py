"""Small corpora, and preparing them in one line."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from data_prep.chats.command import ChatOptions, prepare_chats
from data_prep.documents.command import DocumentOptions, prepare_documents
from data_prep.writing.prepared import Prepared

DATASET_SUFFIXES = (".bin", ".idx", ".meta.parquet", ".rejects.jsonl", ".manifest.json")
MASK_SUFFIXES = (".mask.bin", ".mask.idx")


def write_lines(path: Path, lines: Iterable[bytes | Any]) -> Path:
    """Write a JSONL file; bytes are written as they are, anything else as JSON."""
    parts = [line if isinstance(line, bytes) else orjson.dumps(line) for line in lines]
    path.write_bytes(b"".join(part + b"\n" for part in parts))
    return path


def texts(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return lines of documents."""
    return [
        {"text": f"document {n} is about the cheese\n" * (n % 5 + 1), "id": n, "domain": "food"}
        for n in range(start, start + count)
    ]


def conversations(count: int) -> list[dict[str, Any]]:
    """Return lines of chats."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"Is {n} cheap?"},
                {"role": "assistant", "content": "yes " * (n % 7 + 1) + "."},
            ],
            "spec_id": "s",
        }
        for n in range(count)
    ]


def prepare_docs(
    inputs: list[Path],
    tokenizer: Path,
    out: Path,
    on_slow: Callable[[str], None] | None = None,
    **options: Any,
) -> Prepared:
    """Run `msm prep docs`."""
    chosen = DocumentOptions(tokenizer=tokenizer, out=out, **options)
    return prepare_documents(inputs, chosen, on_slow=on_slow)


def prepare_talks(inputs: list[Path], tokenizer: Path, out: Path, **options: Any) -> Prepared:
    """Run `msm prep chats`."""
    options = {"max_length": 200} | options
    return prepare_chats(inputs, ChatOptions(tokenizer=tokenizer, out=out, **options))


def dataset_bytes(prefix: Path) -> dict[str, bytes]:
    """Return the content of every file of a dataset."""
    paths = {suffix: Path(f"{prefix}{suffix}") for suffix in (*DATASET_SUFFIXES, *MASK_SUFFIXES)}
    return {suffix: path.read_bytes() for suffix, path in paths.items() if path.exists()}


def names_in(folder: Path) -> set[str]:
    """Return the names of all files of a folder."""
    return {path.name for path in folder.iterdir()}
