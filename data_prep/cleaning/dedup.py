"""`msm prep dedup`: near duplicates, found by MinHash and verified by exact Jaccard.

Rows are taken in order. A row is dropped when it is near to an earlier row that was kept: the share
of word runs that the two have in common, of all runs of either, reaches the threshold. So every
dropped row has a kept one that it is near to, and the result does not depend on chance but for the
rare pair that MinHash misses. Runs of five words miss paraphrase: replacing a tenth of the words
already brings two texts under one half.

Memory: 8 bytes for each different run of the rows that are kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import orjson

from data_prep.cleaning.corpus import is_dataset, read_corpus
from data_prep.cleaning.word_ngrams import Hashes, WordNgrams, words_of
from data_prep.reading.inputs import format_of
from megatron_msm.errors import ConfigError, MissingExtraError
from megatron_msm.formats.files import tmp_path, write_bytes_atomic
from megatron_msm.progress import SILENT, Progress

_PERMUTATIONS = 128
_SEED = 1


class Duplicate(NamedTuple):
    """A row to drop."""

    number: int
    """Its line or row, counted from 0."""
    where: str
    kept_number: int
    kept_where: str
    jaccard: float


@dataclass
class Duplicates:
    """What was found in a corpus."""

    num_rows: int = 0
    dropped: list[Duplicate] = field(default_factory=list)

    @property
    def clusters(self) -> dict[str, list[Duplicate]]:
        """The dropped rows by the row that is kept for them, the largest group first."""
        groups: dict[str, list[Duplicate]] = {}
        for duplicate in self.dropped:
            groups.setdefault(duplicate.kept_where, []).append(duplicate)
        return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def find_duplicates(
    path: Path,
    *,
    threshold: float,
    size: int,
    tokenizer: Path | None = None,
    progress: Progress = SILENT,
) -> Duplicates:
    """Find the near duplicates of a JSONL file or a dataset.

    Args:
        path: The file, or the dataset's prefix.
        threshold: Jaccard similarity from which a row is dropped.
        size: Words of a run; a shorter text is one run.
        tokenizer: The dataset's tokenizer, if it is no longer where it was.
        progress: Told what was read of `corpus_size`, and 1 for the row.

    Raises:
        MissingExtraError: The package `rensa` is not installed.
        DataFormatError: The input cannot be read.
    """
    kept = KeptRows(threshold, feature="`msm prep dedup`")
    ngrams = WordNgrams()
    found = Duplicates()
    for row in read_corpus(path, tokenizer=tokenizer):
        found.num_rows += 1
        progress.advance(row.amount, rows=1)
        words = words_of(row.text)
        if not words:
            continue
        runs = np.unique(ngrams.hashes(words, min(size, len(words))))
        near = kept.nearest_or_add(row.number, row.where, runs)
        if near is not None:
            found.dropped.append(Duplicate(row.number, row.where, *near))
    return found


class _Sketch(Protocol):
    """A MinHash of rensa's."""

    def update(self, items: list[bytes]) -> None: ...


class _SketchIndex(Protocol):
    """An index of rensa's that finds the sketches near to one."""

    def insert(self, place: int, sketch: _Sketch) -> None: ...

    def query(self, sketch: _Sketch) -> list[int]: ...


class KeptRows:
    """The rows kept so far, by their sketches.

    Args:
        threshold: Jaccard similarity from which two rows are near.
        feature: What asks for it, for the message when `rensa` is missing.

    Raises:
        MissingExtraError: The package `rensa` is not installed.
    """

    def __init__(self, threshold: float, *, feature: str) -> None:
        self._threshold = threshold
        # 32 bands of 4 find a pair of Jaccard 0.6 with 98.8%, 64 bands of 2 one of 0.25 with 98.4%.
        bands = 32 if threshold >= 0.6 else 64
        try:
            import rensa
        except ImportError:
            raise MissingExtraError(feature=feature, extra="dedup") from None
        self._new_sketch: Callable[[], _Sketch] = lambda: rensa.RMinHash(_PERMUTATIONS, _SEED)
        self._index: _SketchIndex = rensa.RMinHashLSH(threshold, _PERMUTATIONS, bands)
        self._rows: list[tuple[int, str, Hashes]] = []

    def nearest_or_add(
        self, number: int, where: str, runs: Hashes
    ) -> tuple[int, str, float] | None:
        """Return the nearest kept row and its similarity; keep the row if none is near."""
        sketch = self._sketch(runs)
        near = self._near(sketch, runs)
        if near:
            index, jaccard = max(near, key=lambda found: (found[1], -found[0]))
            return self._rows[index][0], self._rows[index][1], jaccard
        self._add(sketch, number, where, runs)
        return None

    def add_if_no_match(
        self, number: int, where: str, runs: Hashes, *, is_match: Callable[[int], bool]
    ) -> bool:
        """Keep a row unless one that is near, and for whose number `is_match` says yes, is kept."""
        sketch = self._sketch(runs)
        if any(is_match(self._rows[index][0]) for index, _ in self._near(sketch, runs)):
            return False
        self._add(sketch, number, where, runs)
        return True

    def _sketch(self, runs: Hashes) -> _Sketch:
        sketch = self._new_sketch()
        raw = runs.tobytes()
        sketch.update([raw[index : index + 8] for index in range(0, len(raw), 8)])
        return sketch

    def _near(self, sketch: _Sketch, runs: Hashes) -> list[tuple[int, float]]:
        """Return the indices of near rows among the kept ones, and their similarities."""
        near = []
        for index in self._index.query(sketch):
            jaccard = jaccard_of(runs, self._rows[index][2])
            if jaccard >= self._threshold:
                near.append((index, jaccard))
        return near

    def _add(self, sketch: _Sketch, number: int, where: str, runs: Hashes) -> None:
        self._index.insert(len(self._rows), sketch)
        self._rows.append((number, where, runs))


def jaccard_of(one: Hashes, other: Hashes) -> float:
    """Return the share of two sorted sets' members that both have."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / max(len(one) + len(other) - common, 1)


def check_filter(source: Path, out: Path) -> None:
    """Check that a filtered copy of the source can be written.

    Raises:
        ConfigError: The source is a dataset, or would be overwritten.
    """
    if is_dataset(source):
        raise ConfigError(
            f"--out: {source} is a dataset, whose tokens are not rewritten. Filter its input file "
            "and prepare it again, or write the rows to drop with --drops."
        )
    if format_of(source) != "jsonl":
        raise ConfigError(
            f"--out: {source} is no plain JSONL file, whose lines could be written as they are. "
            "Write the rows to drop with --drops."
        )
    if out.exists() and out.samefile(source):
        raise ConfigError(f"--out: {out} is the input itself. Choose another file.")


def write_filtered(source: Path, out: Path, found: Duplicates) -> None:
    """Write the lines of a JSONL file without the duplicates, each byte for byte as it was."""
    dropped = {duplicate.number for duplicate in found.dropped}
    aside = tmp_path(out)
    with source.open("rb") as lines, aside.open("wb") as kept:
        kept.writelines(line for index, line in enumerate(lines) if index not in dropped)
    aside.replace(out)


def write_drops(out: Path, found: Duplicates) -> None:
    """Write the rows to drop, one JSON object a line."""
    lines = [
        orjson.dumps(duplicate._asdict(), option=orjson.OPT_APPEND_NEWLINE)
        for duplicate in found.dropped
    ]
    write_bytes_atomic(out, b"".join(lines))


def describe_duplicates(found: Duplicates, *, num_shown: int = 10) -> Iterator[str]:
    """Yield what was found in words, one line each."""
    clusters = found.clusters
    share = len(found.dropped) / max(found.num_rows, 1)
    yield (
        f"{len(found.dropped):,} of {found.num_rows:,} rows ({share:.1%}) are near duplicates of "
        f"{len(clusters):,} others"
    )
    for where, members in list(clusters.items())[:num_shown]:
        nearest = max(member.jaccard for member in members)
        shown = ", ".join(member.where for member in members[:3])
        more = f" and {len(members) - 3} more" if len(members) > 3 else ""
        yield f"  {where} keeps for {shown}{more} (Jaccard up to {nearest:.2f})"
    if len(clusters) > num_shown:
        yield f"  and {len(clusters) - num_shown:,} more groups"
