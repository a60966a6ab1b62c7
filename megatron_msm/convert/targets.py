"""The folder that a conversion writes: where it is, whose it is, and what is in it already."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.files import TMP_PREFIX, FileRecord

_SHOWN = 5


def folder_to_replace(out: Path) -> Path:
    """Return where a folder is put that is written aside and renamed: links are followed.

    Raises:
        CheckpointError: It is the folder that this process is in, or one above it; the shell would
            be left in a folder that is gone.
    """
    target = out.resolve()
    if Path.cwd().is_relative_to(target):
        raise CheckpointError(
            f"{out}: the command runs in {'it' if Path.cwd() == target else 'a folder below it'}, "
            "and it would be replaced as a whole. Run the command from elsewhere, or name a new "
            "folder."
        )
    return target


@contextlib.contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Keep other conversions from writing the same folder meanwhile.

    Raises:
        CheckpointError: One is at work.
    """
    path = target.parent / f"{TMP_PREFIX}lock-{target.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"{target}: another conversion is writing it at this moment. Wait for it, or name "
                "another folder."
            ) from None
        # Removed while it is held: who has it open finds a name that is another file, or none.
        if not path.exists() or os.fstat(lock).st_ino != path.stat().st_ino:
            raise CheckpointError(
                f"{target}: another conversion has just ended there. Run the command again."
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def refuse_to_delete_foreign_files(
    folder: Path, written: Mapping[str, FileRecord], *, itself: str
) -> None:
    """Check that a folder that --force replaces holds nothing but what was written into it.

    Args:
        folder: To be replaced.
        written: Every file with its size at that time, but for the one that lists them.
        itself: Name of that one.

    Raises:
        CheckpointError: It holds other files, or some have another size.
    """
    found = {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() or path.is_symlink()
    }
    foreign = [
        name
        for name, path in found.items()
        if name != itself and (name not in written or path.lstat().st_size != written[name].bytes)
    ]
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise CheckpointError(
            f"{folder}: --force would delete files that this program did not write, or that were "
            f"changed since: {', '.join(foreign[:_SHOWN])}{more}. Move them elsewhere first, or "
            "choose another folder."
        )
