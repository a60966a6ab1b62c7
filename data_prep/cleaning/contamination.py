"""`msm prep contamination`: which rows of a corpus repeat evaluation items.

An item's words are cut into runs of n. The overlap of a row with an item is the share of the item's
runs that the row contains; an item shorter than n words counts as one run. Memory grows with the
items, not with the corpus.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.cleaning.corpus import CorpusText, read_corpus
from data_prep.cleaning.word_ngrams import Hashes, WordNgrams, words_of
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.json_types import JsonRow
from megatron_msm.progress import SILENT, Progress

_FEWEST_WORDS = 3
"""Shorter items would be found everywhere."""


class Match(NamedTuple):
    """A row that repeats an item, the strongest of its matches."""

    overlap: float
    row: CorpusText
    item: CorpusText

    def as_json(self) -> JsonRow:
        """Return what `--json` prints."""
        return {
            "overlap": self.overlap,
            "row": {"where": self.row.where, **self.row.about},
            "item": {"where": self.item.where, **self.item.about},
        }


@dataclass
class Contamination:
    """What a comparison found."""

    num_rows: int = 0
    num_items: int = 0
    too_short: int = 0
    """Items of fewer than three words, which are not looked for."""
    rows_above: int = 0
    """Rows whose overlap with some item reaches the limit."""
    items_above: set[int] = field(default_factory=set)
    """The items that they repeat."""
    worst: list[Match] = field(default_factory=list)


def find_contamination(
    corpus: Path,
    items: Path,
    *,
    size: int,
    overlap: float,
    num_worst: int,
    tokenizer: Path | None = None,
    progress: Progress = SILENT,
) -> Contamination:
    """Compare every row of a corpus with every item.

    Args:
        corpus: What would be trained on: JSONL or a dataset.
        items: What would be measured with.
        size: Words of a run.
        overlap: Share of an item's runs from which a row counts as repeating it.
        num_worst: How many rows to report.
        tokenizer: The dataset's tokenizer, if it is no longer where it was.
        progress: Told what was read of `corpus_size`, and 1 for the row.

    Raises:
        DataFormatError: A file cannot be read, or there are no items.
    """
    return match_items(
        read_corpus(corpus, tokenizer=tokenizer),
        read_items(items, tokenizer=tokenizer),
        size=size,
        overlap=overlap,
        num_worst=num_worst,
        progress=progress,
    )


def read_items(items: Path, *, tokenizer: Path | None = None) -> list[CorpusText]:
    """Read evaluation items: JSONL, or a dataset.

    Raises:
        DataFormatError: The file cannot be read, or there are none.
    """
    found = list(read_corpus(items, tokenizer=tokenizer))
    if not found:
        raise DataFormatError(f"{items}: no items to look for. Give a file with at least one.")
    return found


def match_items(
    rows: Iterable[CorpusText],
    items: list[CorpusText],
    *,
    size: int,
    overlap: float,
    num_worst: int,
    progress: Progress = SILENT,
) -> Contamination:
    """Compare texts with items; the arguments are those of `find_contamination`."""
    index = ItemIndex(items, size)
    found = Contamination(num_items=len(index.items), too_short=index.too_short)
    heap: list[tuple[float, int, Match]] = []
    for row in rows:
        found.num_rows += 1
        progress.advance(row.amount, rows=1)
        shares = dict(index.shares(row.text))
        if not shares:
            continue
        above = [item for item, share in shares.items() if share >= overlap]
        found.rows_above += bool(above)
        found.items_above.update(above)
        best = max(shares, key=lambda item: shares[item])
        match = Match(shares[best], row, index.items[best])
        heapq.heappush(heap, (match.overlap, -row.number, match))
        if len(heap) > num_worst:
            heapq.heappop(heap)
    found.worst = [match for *_, match in sorted(heap, key=lambda entry: entry[:2], reverse=True)]
    return found


class ItemIndex:
    """The runs of all items, sorted for lookup."""

    def __init__(self, items: list[CorpusText], size: int) -> None:
        self.items = items
        self.too_short = 0
        self._ngrams = WordNgrams()
        self._num_runs: list[int] = []
        runs: dict[int, list[tuple[int, Hashes]]] = {}
        for index, item in enumerate(items):
            words = words_of(item.text)
            length = min(size, len(words))
            hashes = np.empty(0, np.uint64)
            if length >= _FEWEST_WORDS:
                hashes = np.unique(self._ngrams.hashes(words, length))
                runs.setdefault(length, []).append((index, hashes))
            else:
                self.too_short += 1
            self._num_runs.append(len(hashes))
        self._ngrams.is_open = False
        self._tables = {length: _table(entries) for length, entries in runs.items()}

    def shares(self, text: str) -> Iterator[tuple[int, float]]:
        """Yield each item of which the text contains something, and how much."""
        words = words_of(text)
        for length, (hashes, owners) in self._tables.items():
            present = np.unique(self._ngrams.hashes(words, length))
            first = np.searchsorted(hashes, present, side="left")
            last = np.searchsorted(hashes, present, side="right")
            hits = [owners[a:b] for a, b in zip(first, last, strict=True) if b > a]
            if hits:
                items, counts = np.unique(np.concatenate(hits), return_counts=True)
                for item, count in zip(items.tolist(), counts.tolist(), strict=True):
                    yield item, count / self._num_runs[item]


def _table(entries: list[tuple[int, Hashes]]) -> tuple[Hashes, "np.typing.NDArray[np.int64]"]:
    hashes = np.concatenate([found for _, found in entries])
    owners = np.repeat([index for index, _ in entries], [len(found) for _, found in entries])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], owners[order]


def describe_contamination(found: Contamination, *, overlap: float) -> Iterator[str]:
    """Yield what was found in words, one line each."""
    yield (
        f"{found.rows_above:,} of {found.num_rows:,} rows repeat {overlap:.0%} of an item or more; "
        f"{len(found.items_above):,} of {found.num_items:,} items are repeated"
    )
    if found.too_short:
        yield f"  {found.too_short:,} items have fewer than {_FEWEST_WORDS} words: not looked for"
    for match in found.worst:
        about = "  ".join(f"{name} {value}" for name, value in match.row.about.items())
        yield f"  {match.overlap:6.1%}  {match.row.where}  {about}".rstrip()
        yield f"          item {match.item.where}: {_short(match.item.text)}"


def _short(text: str, limit: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
