"""Runs of words as 64-bit numbers, for comparing texts.

Words are what is between anything but letters and digits, in lower case, so that punctuation and
line breaks do not tell copies apart. Two different runs share a number with a chance of 2^-64.
"""

import re

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Return the words of a text."""
    return _WORD.findall(text.casefold())


class WordNgrams:
    """Numbers the words it meets, and runs of them.

    Args:
        is_open: Whether new words get a number; else all unknown words have the same one, which is
            in no run seen while open.
    """

    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self._ids: dict[str, int] = {}

    def hashes(self, words: list[str], size: int) -> Hashes:
        """Return one number for each run of `size` words, in order."""
        return hashes_of_runs(self.ids(words), size)

    def ids(self, words: list[str]) -> Hashes:
        """Return the number of each word."""
        return np.array([self._id(word) for word in words], np.uint64)

    def _id(self, word: str) -> int:
        if self.is_open:
            return self._ids.setdefault(word, len(self._ids) + 1)
        return self._ids.get(word, 0)


def hashes_of_runs(ids: Hashes, size: int) -> Hashes:
    """Return one number for each run of `size` numbered words, in order."""
    if len(ids) < size:
        return np.empty(0, np.uint64)
    values = _mixed(ids)
    total = np.zeros(len(ids) - size + 1, np.uint64)
    for index in range(size):
        total = _mixed(total + values[index : index + len(total)])
    return total


def _mixed(values: Hashes) -> Hashes:
    """Spread 64-bit numbers.

    Source: SplitMix64, Steele, Lea and Flood 2014.
    """
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
