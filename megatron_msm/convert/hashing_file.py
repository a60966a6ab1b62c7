"""A new file that is hashed while it is written."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megatron_msm.formats.checkpoint_folder import FileRecord

# Below this, handing data to the other thread costs more than hashing it.
_SMALL_BYTES = 1 << 16


class HashingFile:
    """Writes and hashes the same memory at the same time, without a copy of it.

    OpenSSL needs no interpreter lock while it hashes, and neither does the system call.
    """

    def __init__(self, file: Any, thread: ThreadPoolExecutor) -> None:
        self._file, self._thread = file, thread
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append content; it may change once this returns."""
        if len(data) < _SMALL_BYTES:
            self._digest.update(data)
            self._file.write(data)
        else:
            hashed = self._thread.submit(self._digest.update, data)
            self._file.write(data)
            hashed.result()
        self.num_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Hand buffered bytes to the operating system."""
        self._file.flush()

    def record(self) -> FileRecord:
        """Return size and hash of everything written."""
        return FileRecord(bytes=self.num_bytes, sha256=self._digest.hexdigest())


@contextmanager
def hashing_file(path: Path) -> Iterator[HashingFile]:
    """Open a new file for the length of the block."""
    with path.open("wb") as file, ThreadPoolExecutor(1, thread_name_prefix="sha256") as thread:
        yield HashingFile(file, thread)
