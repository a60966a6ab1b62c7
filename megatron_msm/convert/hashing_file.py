"""A new file that is hashed, and on its way to the disk, while it is being written."""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import torch

from megatron_msm.convert.comparing import same_bits
from megatron_msm.convert.file_access import Scratch, read_into, write_from
from megatron_msm.formats.files import FileRecord

_BLOCK_BYTES = 1 << 20


class HashingFile:
    """Another thread hashes what is finished from the beginning of the file on.

    It reads the page cache, so that whoever writes need not wait for it, and may write later parts
    first. OpenSSL needs no interpreter lock while it hashes, and neither does the system call.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._digest = hashlib.sha256()
        self._block = memoryview(bytearray(_BLOCK_BYTES))
        self._handed_over: list[Future[None]] = []
        self._num_handed_over = 0
        self._read_back = Scratch()
        self.num_bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append content; what `torch.save` uses."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self.num_bytes)
            self.num_bytes += written
            view = view[written:]
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered; `torch.save` calls this."""

    def write_tensor(self, tensor: torch.Tensor, offset: int) -> None:
        """Put a tensor's content into its place."""
        write_from(self._file, offset, tensor)
        self.num_bytes = max(self.num_bytes, offset + tensor.nbytes)

    def holds_tensor(self, tensor: torch.Tensor, offset: int) -> bool:
        """Read a tensor's place back, and compare it bit for bit.

        Block by block, which takes less memory and finds it in the processor's cache. Right after
        the writing: `finish` may drop the pages from memory.
        """
        num_rows = max(1, _BLOCK_BYTES * len(tensor) // max(1, tensor.nbytes))
        for block in tensor.split(num_rows):
            again = self._read_back.tensor(block.shape, block.dtype)
            if not read_into(self._file, offset, again) or not same_bits(again, block):
                return False
            offset += block.nbytes
        return True

    def finish(self, end: int) -> None:
        """Say that everything before `end` is final."""
        if end - self._num_handed_over >= _BLOCK_BYTES:
            self._hand_over(end)

    def record(self) -> FileRecord:
        """Return size and hash of the file, all of which is final."""
        self._hand_over(self.num_bytes)
        for handed_over in self._handed_over:
            handed_over.result()
        return FileRecord(bytes=self.num_bytes, sha256=self._digest.hexdigest())

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close; what is not hashed by now is not wanted."""
        self._thread.shutdown(cancel_futures=True)
        os.close(self._file)

    def _hand_over(self, end: int) -> None:
        begin, self._num_handed_over = self._num_handed_over, end
        # Starts the writing to disk without waiting for it; until it is there it stays cached.
        os.posix_fadvise(self._file, begin, end - begin, os.POSIX_FADV_DONTNEED)
        self._handed_over.append(self._thread.submit(self._hash, begin, end))

    def _hash(self, begin: int, end: int) -> None:
        while begin < end:
            num_read = os.preadv(self._file, [self._block[: end - begin]], begin)
            assert num_read, "the file became shorter"
            self._digest.update(self._block[:num_read])
            begin += num_read
