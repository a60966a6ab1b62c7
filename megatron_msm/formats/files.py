"""Writing files and folders so that a torn one is never taken for a finished one.

Everything is written under a temporary name in the same folder, flushed to disk, and then renamed.
A process that dies in between leaves only names that start with `.tmp-`, which nothing reads.
"""

import contextlib
import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict

from megatron_msm.formats.json_types import JsonData

TMP_PREFIX = ".tmp-"
_CHUNK_BYTES = 1 << 20


class FileRecord(BaseModel):
    """Size and content hash of one file of a checkpoint, an export or a dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bytes: int
    sha256: str


def file_record(path: Path) -> FileRecord:
    """Measure and hash one file."""
    return FileRecord(bytes=path.stat().st_size, sha256=sha256_of_file(path))


def tmp_path(path: Path) -> Path:
    """Return the name beside `path` under which it is written before it is finished."""
    return path.with_name(TMP_PREFIX + path.name)


def fsync_path(path: Path) -> None:
    """Flush one file or folder entry to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Replace `path` with `content`; a reader sees the old file or the new one, whole.

    Several processes may do so at once, on several hosts: the last one's content stays.
    """
    writer = f"{socket.gethostname()}-{os.getpid()}"
    tmp = path.with_name(f"{TMP_PREFIX}{writer}-{path.name}")
    with tmp.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(path)
    fsync_path(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """Like `write_bytes_atomic`, for UTF-8 text."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: Path, value: JsonData) -> None:
    """Like `write_bytes_atomic`, for indented JSON."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    write_bytes_atomic(path, orjson.dumps(value, option=options))


@contextlib.contextmanager
def folder_written_aside(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends without an error.

    An existing `path` is replaced. On an error the temporary folder is removed.
    """
    tmp = tmp_path(path)
    if tmp.exists():
        shutil.rmtree(tmp)
    tmp.mkdir(parents=True)
    try:
        yield tmp
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise
    publish_folder(tmp, path)


def publish_folder(tmp: Path, path: Path) -> None:
    """Flush every file below `tmp` and rename the folder to `path`, replacing what is there."""
    for entry in sorted(tmp.rglob("*")):
        fsync_path(entry)
    fsync_path(tmp)
    if path.exists():
        old = path.with_name(f"{TMP_PREFIX}old-{path.name}")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        tmp.rename(path)
        shutil.rmtree(old)
    else:
        tmp.rename(path)
    fsync_path(path.parent)


def delete_folder(path: Path) -> None:
    """Delete a folder; half of it is never seen under its name."""
    aside = path.with_name(f"{TMP_PREFIX}deleted-{path.name}")
    if aside.exists():  # of a process that was killed meanwhile
        shutil.rmtree(aside)
    path.rename(aside)
    shutil.rmtree(aside)


def sha256_of_file(path: Path, *, on_read: Callable[[int], None] | None = None) -> str:
    """Return the hex SHA-256 of a file's bytes, read in chunks.

    Args:
        path: The file.
        on_read: Told how many bytes more were read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if on_read is not None:
                on_read(len(chunk))
    return digest.hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the hex SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_json(value: JsonData) -> str:
    """Return the hex SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
