"""Tensors to and from files without a copy on the way, and without memory that is fresh each time.

On the machine this was measured on, the first touch of fresh memory took five times as long as
copying its content from the page cache.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch

# The most pieces that the kernel takes at once (Linux, UIO_MAXIOV).
_MAX_PIECES = 1024

_Operation = Callable[[int, list[memoryview], int], int]


class Scratch:
    """Memory for one tensor at a time. It stays as large as the largest was; copies start empty."""

    def __init__(self) -> None:
        self._memory = np.empty(0, dtype=np.uint8)

    def tensor(self, size: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor of undefined content; the one returned before must not be used any more.

        Its storage is exactly as large as it is.
        """
        count = torch.Size(size).numel()
        if count == 0:
            return torch.empty(size, dtype=dtype)
        if self._memory.nbytes < count * dtype.itemsize:
            self._memory = np.empty(0, dtype=np.uint8)  # first give back, then take
            self._memory = np.empty(count * dtype.itemsize, dtype=np.uint8)
        # frombuffer, since a view would have the whole memory as its storage.
        return torch.frombuffer(self._memory, dtype=dtype, count=count).reshape(size)

    def __reduce__(self) -> tuple[type["Scratch"], tuple[()]]:
        """Go to another process without the memory."""
        return Scratch, ()


def read_into(file: int, offset: int, target: torch.Tensor) -> bool:
    """Read a tensor's elements in their order into its memory, which may have gaps.

    Args:
        file: Descriptor.
        offset: Where the bytes begin.
        target: On the CPU.

    Returns:
        False when the file ends before.
    """
    return _move(os.preadv, file, offset, target)


def write_from(file: int, offset: int, source: torch.Tensor) -> None:
    """Write a tensor's elements in their order from its memory, which may have gaps."""
    written = _move(os.pwritev, file, offset, source)
    assert written, "wrote nothing"


def _move(operation: _Operation, file: int, offset: int, tensor: torch.Tensor) -> bool:
    waiting = _pieces(tensor)
    while waiting:
        num_moved = operation(file, waiting[:_MAX_PIECES], offset)
        if num_moved == 0:
            return False
        offset += num_moved
        waiting = _rest(waiting, num_moved)
    return True


def _rest(pieces: list[memoryview], num_moved: int) -> list[memoryview]:
    """Return what is left when the first bytes are moved; one call moves at most 2 GiB."""
    for index, piece in enumerate(pieces):
        if num_moved < len(piece):
            return [piece[num_moved:], *pieces[index + 1 :]]
        num_moved -= len(piece)
    return []


def _pieces(tensor: torch.Tensor) -> list[memoryview]:
    """Return the memory of a tensor's elements as few pieces without gaps."""
    if tensor.numel() == 0:
        return []
    if tensor.is_contiguous():
        return [tensor.detach().reshape(-1).view(torch.uint8).numpy().data]
    return [piece for row in tensor for piece in _pieces(row)]
