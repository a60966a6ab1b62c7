"""SHA-256 in another thread, so that a file is hashed while it is written or read.

OpenSSL hashes about 1 GB/s on a core and needs no interpreter lock meanwhile; reading a finished
file again to hash it would double the input and output.
"""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_BATCH_BYTES = 1 << 20
_MAX_WAITING = 4
"""Batches held for the thread; more make the caller wait, so memory stays bounded."""


class BackgroundHash:
    """A SHA-256 that is fed in order and computed behind the caller's back.

    The thread starts with the first full batch, so that small content costs none.

    Args:
        before: Digest of content that goes before.
    """

    def __init__(self, before: "hashlib._Hash | None" = None) -> None:
        self._digest = hashlib.sha256() if before is None else before.copy()
        self._parts: list[bytes] = []
        self._size = 0
        self._waiting: deque[Future[None]] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def update(self, data: bytes) -> None:
        """Append content; it must not change afterwards."""
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _BATCH_BYTES:
            self._hand_over()

    def hexdigest(self) -> str:
        """Return the digest of all content, and end the thread."""
        self.close()
        for part in self._parts:
            self._digest.update(part)
        self._parts = []
        return self._digest.hexdigest()

    def close(self) -> None:
        """Wait for the thread and end it."""
        while self._waiting:
            self._waiting.popleft().result()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _hand_over(self) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        while len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._consume, self._parts))
        self._parts, self._size = [], 0

    def _consume(self, parts: list[bytes]) -> None:
        for part in parts:
            self._digest.update(part)


class HashedFile:
    """A new file that knows its size and hash when it is finished; writes in large pieces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_bytes = 0
        self._file = path.open("wb", buffering=_BATCH_BYTES)
        self._hash = BackgroundHash()

    def write(self, data: bytes) -> int:
        """Append content."""
        self._file.write(data)
        self._hash.update(data)
        self.num_bytes += len(data)
        return len(data)

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.num_bytes

    def flush(self) -> None:
        """Hand buffered bytes to the operating system."""
        self._file.flush()

    def fileno(self) -> int:
        """Return the descriptor, for fsync."""
        return self._file.fileno()

    def hexdigest(self) -> str:
        """Return the SHA-256 of everything written."""
        return self._hash.hexdigest()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    def close(self) -> None:
        """Close the file."""
        self._hash.close()
        self._file.close()
