"""Whether a text repeats an evaluation item."""

from collections.abc import Sequence
from pathlib import Path

from data_prep.cleaning.contamination import ItemIndex
from data_prep.cleaning.corpus import CorpusText, read_corpus

_WORDS = 8


class ItemGate:
    """Refuses texts that hold much of an item.

    Args:
        files: The items, JSONL.
        overlap: Share of an item's word runs from which a text repeats it.

    Raises:
        DataFormatError: A file cannot be read.
    """

    def __init__(self, files: Sequence[Path], *, overlap: float) -> None:
        self._overlap = overlap
        items: list[CorpusText] = [item for path in files for item in read_corpus(path)]
        self._index = ItemIndex(items, _WORDS) if items else None

    def refusal(self, text: str) -> str | None:
        """Return why a text is refused."""
        if self._index is None:
            return None
        for item, share in self._index.shares(text):
            if share >= self._overlap:
                return f"repeats {share:.0%} of the evaluation item {self._index.items[item].where}"
        return None
