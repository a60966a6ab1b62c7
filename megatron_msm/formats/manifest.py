"""PREFIX.manifest.json: what a dataset is, what made it, and that it is finished.

The manifest is written last, so it is also the completion marker: files without one are the
remains of a run that died, and every reader refuses them.

    PREFIX.bin .idx            tokens            PREFIX.meta.parquet     provenance of each row
    PREFIX.mask.bin .mask.idx  loss mask (chats) PREFIX.rejects.jsonl    lines that are not rows
"""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import FileRecord, sha256_of_json, write_json_atomic
from megatron_msm.formats.json_types import JsonObject

_SUFFIX = ".manifest.json"
_TOKEN_SUFFIXES = (".bin", ".idx", ".mask.bin", ".mask.idx")
_SUFFIXES = (_SUFFIX, ".meta.parquet", ".rejects.jsonl", ".mask.bin", ".mask.idx", ".bin", ".idx")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputPart(_Frozen):
    """Which bytes of an input file a shard read: whole lines."""

    start: int
    stop: int
    before_sha256: str
    """Hash of the content before `start`."""


class ShardEntry(_Frozen):
    """Which of several parts of a dataset this is."""

    index: int
    """Counted from 0."""
    count: int
    inputs_sha256: str
    """Hash of the list of all inputs of all shards, with their sizes."""


class InputEntry(_Frozen):
    """One input file as it was read."""

    path: str
    """As given on the command line; the provenance rows name the same."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Hash of its content; when a part was read, of the content up to the end of the part."""
    part: InputPart | None = None
    """What a shard read of the file; None when it was all of it."""


class Counts(_Frozen):
    """Where every input line went: lines = blank + (kept - extra_rows) + rejected."""

    model_config = ConfigDict(populate_by_name=True)

    lines: int = 0
    """Lines read, blank ones included."""
    blank: int = 0
    """Lines of nothing but white space; no row and no reject."""
    kept: int = 0
    """Rows of the dataset."""
    rejected: int = 0
    """Lines of PREFIX.rejects.jsonl."""
    overlong_dropped: int = 0
    """Rejected lines that `--overlong drop` left out; --max-rejects does not count them."""
    overlong_truncated: int = 0
    """Rows that end at an earlier turn than their line."""
    extra_rows: int = 0
    """Rows after the first of lines that were split into several."""
    tokens: int = 0
    loss_tokens: int = Field(default=0, alias="trained_tokens")
    """Tokens that carry loss; for documents all of them. Files and --json say `trained_tokens`."""
    lost_bytes: int = 0
    """Bytes of the rows' text for which the tokenizer has no token, so that it leaves them out."""
    rescued: int = 0
    """Rows that `tokenizers` encoded because the fast back end failed; the tokens are the same."""
    changes: dict[str, int] = Field(default_factory=dict)
    """Kept lines in which each change was made to bring them into the form that is read."""

    def __add__(self, other: "Counts") -> "Counts":
        """Return the counts of both together."""
        changes = Counter(self.changes) + Counter(other.changes)
        ours, theirs = self.model_dump(exclude={"changes"}), other.model_dump(exclude={"changes"})
        sums = {name: count + theirs[name] for name, count in ours.items()}
        return Counts(**sums, changes=dict(sorted(changes.items())))

    def as_json(self) -> dict[str, Any]:
        """Return the counts under the names that the manifest has."""
        return self.model_dump(by_alias=True)


class DatasetManifest(_Frozen):
    """The content of PREFIX.manifest.json."""

    format_version: Literal[1] = 1
    kind: Literal["docs", "chats"]
    tokenizer_sha256: str
    """Hash of tokenizer.json as canonical JSON."""
    tokenizer_path: str = ""
    """Where the tokenizer was found; a convenience for `msm prep show`, no part of the identity."""
    chat_template_sha256: str | None = None
    chat_template: str | None = None
    """The template's text, for chats; None for documents."""
    vocab_size: int
    eod_id: int | None = None
    """Token at the end of every document; None when none was appended."""
    settings: JsonObject = Field(default_factory=dict)
    """The options of the preparation that decide its rows."""
    backend: str = ""
    """What encoded the text, with its version; the tokens do not depend on it."""
    shard: ShardEntry | None = None
    """Which part of a dataset this is; None for a whole one."""
    counts: Counts
    inputs: tuple[InputEntry, ...] = ()
    files: dict[str, FileRecord] = Field(default_factory=dict)
    """Every other file of the dataset, by its suffix after PREFIX (`.bin`, `.meta.parquet`)."""

    @property
    def carry(self) -> list[str]:
        """The further fields of an input line that are columns of the provenance."""
        names = self.settings.get("carry")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def sha256(self) -> str:
        """Identity of what a model would see: tokenizer, template, tokens and masks.

        Paths, settings and provenance are not part of it: the same tokens made from a copy of the
        corpus elsewhere are the same dataset.
        """
        tokens = {name: self.files[name].sha256 for name in _TOKEN_SUFFIXES if name in self.files}
        parts = [self.kind, self.tokenizer_sha256, self.chat_template_sha256, self.eod_id, tokens]
        return sha256_of_json(parts)


def dataset_prefix(path: str | Path) -> Path:
    """Return the PREFIX meant by a path, which may name one of the dataset's files."""
    text = str(path)
    for suffix in _SUFFIXES:
        if text.endswith(suffix):
            return Path(text.removesuffix(suffix))
    return Path(text)


def dataset_file(prefix: Path, suffix: str) -> Path:
    """Return the dataset's file with this suffix, as the manifest names it."""
    return Path(f"{prefix}{suffix}")


def manifest_path(prefix: Path) -> Path:
    """Return `PREFIX.manifest.json`."""
    return dataset_file(prefix, _SUFFIX)


def write_manifest(prefix: Path, manifest: DatasetManifest) -> None:
    """Write the manifest, and by that mark the dataset finished."""
    write_json_atomic(manifest_path(prefix), manifest.model_dump(mode="json", by_alias=True))


def read_manifest(prefix: Path) -> DatasetManifest:
    """Read a finished dataset's manifest and check that every file has its size.

    Raises:
        DataFormatError: The dataset does not exist, is unfinished, or was changed.
    """
    path = manifest_path(prefix)
    try:
        manifest = DatasetManifest.model_validate(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        found = [suffix for suffix in _SUFFIXES if dataset_file(prefix, suffix).exists()]
        what = f"has {', '.join(found)} but no {_SUFFIX}: it is unfinished" if found else "is none"
        raise DataFormatError(
            f"{prefix}: a dataset prepared by `msm prep` is needed, and this {what}. "
            "Prepare it with `msm prep docs` or `msm prep chats`."
        ) from None
    except OSError as error:
        raise DataFormatError(f"{path}: cannot be read ({error.strerror}).") from None
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise DataFormatError(
            f"{path}: not a dataset manifest: {error}. Prepare the dataset again."
        ) from None
    for suffix, entry in manifest.files.items():
        _check_file_size(dataset_file(prefix, suffix), entry.bytes)
    return manifest


def _check_file_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise DataFormatError(
            f"{path}: missing, though the manifest lists it. Prepare the dataset again."
        )
    if path.stat().st_size != expected:
        raise DataFormatError(
            f"{path}: {path.stat().st_size} bytes where the manifest says {expected}. "
            "The dataset was changed or damaged; prepare it again."
        )
