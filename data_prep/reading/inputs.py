"""Which files a preparation reads: paths, patterns and folders, checked before any work.

A `datasets` folder (from `save_to_disk`) stands for the Arrow files it names, in its order; `-` is
standard input, as plain JSONL.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import orjson

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.json_types import JsonObject, JsonValue, as_objects

Format = Literal["jsonl", "gzip", "zstd", "parquet", "arrow"]
_FORMATS: dict[str, Format] = {
    ".gz": "gzip",
    ".zst": "zstd",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_UNREADABLE = (".xz", ".bz2", ".zip", ".lz4", ".tar")
_STATE_FILE = "state.json"
_SPLITS_FILE = "dataset_dict.json"
_KNOWN = "JSONL (also .gz and .zst), Parquet, Arrow, or a `datasets` folder"
_HEAD_BYTES = 4096
_ARRAY_OF_OBJECTS = re.compile(rb"\s*\[\s*\{")
STDIN = Path("-")
"""Standard input, as a path."""


def format_of(path: Path) -> Format:
    """Return how a file is read, by its last suffix; what has no known one is plain JSONL."""
    return _FORMATS.get(path.suffix.lower(), "jsonl")


def expand_inputs(inputs: Iterable[Path]) -> list[Path]:
    """Return the files meant by paths, folders and glob patterns (`**` crosses folders), in order.

    The files of one pattern or folder are sorted by name.

    Raises:
        DataFormatError: A pattern matches nothing, or a path cannot be read.
    """
    paths = [path for given in inputs for path in _expand(given)]
    check_inputs(paths)
    return paths


def check_inputs(paths: list[Path]) -> None:
    """Check before any work that every input can be read.

    Raises:
        DataFormatError: A path is missing, a folder, of another format, or given twice.
    """
    seen: set[Path] = set()
    for path in paths:
        if path != STDIN:
            _check_file(path)
        if path.resolve() in seen:
            raise DataFormatError(f"{path}: given twice. Name every input once.")
        seen.add(path.resolve())


def _expand(given: Path) -> Iterator[Path]:
    if given.is_dir():
        yield from _folder_files(given)
    elif not given.exists() and any(mark in str(given) for mark in "*?["):
        # pathlib takes no absolute patterns, so they start from the root.
        root = Path(given.anchor)
        found = root.glob(str(given.relative_to(root) if given.anchor else given))
        files = sorted(path for path in found if path.is_file())
        if not files:
            raise DataFormatError(
                f"{given}: no file matches this pattern. Check it with ls; quote it so that the "
                "shell hands it over as it is."
            )
        yield from files
    else:
        yield given


def _folder_files(folder: Path) -> list[Path]:
    if (folder / _SPLITS_FILE).is_file():
        found = _json(folder / _SPLITS_FILE).get("splits")
        splits = found if found and isinstance(found, list) else ["?"]
        raise DataFormatError(
            f"{folder}: a `datasets` folder of several splits. Name those you want: "
            f"{' '.join(str(folder / str(split)) for split in splits)}."
        )
    if not (folder / _STATE_FILE).is_file():
        raise DataFormatError(
            f"{folder}: a folder, and not one that `datasets` saved (it has no {_STATE_FILE}). "
            f"Name its files, for example '{folder}/*.jsonl'."
        )
    state = _json(folder / _STATE_FILE)
    if state.get("_indices_files"):
        raise DataFormatError(
            f"{folder}: this `datasets` folder selects or reorders rows through an index, which "
            "is not read here. Save it again after dataset.flatten_indices()."
        )
    names = [entry.get("filename") for entry in as_objects(state.get("_data_files")) or ()]
    if not names:
        raise DataFormatError(
            f"{folder / _STATE_FILE}: names no data files. Save the dataset again with "
            "dataset.save_to_disk(...)."
        )
    return [folder / str(name) for name in names]


def _json(path: Path) -> JsonObject:
    try:
        value: JsonValue = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise DataFormatError(
            f"{path}: cannot be read as JSON ({error}). Save the dataset again."
        ) from None
    if not isinstance(value, dict):
        raise DataFormatError(f"{path}: not a JSON object. Save the dataset again.")
    return value


def _check_beginning(path: Path) -> None:
    """Refuse by name what would otherwise be a parse error on every line."""
    if format_of(path) != "jsonl" or not path.is_file():
        return
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataFormatError(f"{path}: cannot be read ({error.strerror}).") from None
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataFormatError(
            f"{path}: is UTF-16, and UTF-8 is needed: iconv -f UTF-16 -t UTF-8 {path} > NEW.jsonl"
        )
    if _ARRAY_OF_OBJECTS.match(head.removeprefix(codecs.BOM_UTF8)):
        raise DataFormatError(
            f"{path}: is one JSON array, and one object a line is needed: "
            f"jq -c '.[]' {path} > NEW.jsonl"
        )


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DataFormatError(
            f"{path}: a folder, where a file is needed. Name its files, for example "
            f"'{path}/*.jsonl'."
        )
    if not path.exists():
        raise DataFormatError(f"{path}: no such file. Name an existing one: {_KNOWN}.")
    if path.suffix.lower() in _UNREADABLE:
        raise DataFormatError(
            f"{path}: {path.suffix} files are not read; needed is {_KNOWN}. Convert it first."
        )
    _check_beginning(path)
