"""`--shard i/n`: n parts of one input, each of which a separate job prepares.

The bytes of all inputs, one after the other, are cut into n equal stretches. A line belongs to the
stretch its first byte is in; a compressed file, Parquet or Arrow cannot be entered in the middle
and belongs as a whole to the stretch it begins in. So parts are in the order of the input, and
their merge is what one run over all of it makes.
"""

import re
from pathlib import Path
from typing import NamedTuple

from data_prep.inputs import STDIN, format_of
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.manifest import manifest_path

_TEXT = re.compile(r"(\d+)/(\d+)")
_PART = re.compile(r"\.shard-(\d{5})-of-(\d{5})$")


class Shard(NamedTuple):
    """One of `count` parts."""

    index: int
    """From 0 to count - 1, as SLURM_ARRAY_TASK_ID of `--array=0-(n-1)`."""
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Piece(NamedTuple):
    """One input file, or the stretch of it that a shard reads."""

    path: Path
    start: int = 0
    end: int | None = None
    """Lines that begin in [start, end) are read; None: the whole file."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the file is read."""
        return self.end is None


def parse_shard(text: str) -> Shard:
    """Read `i/n`.

    Raises:
        ConfigError: It is not that, or i is not below n.
    """
    found = _TEXT.fullmatch(text)
    shard = Shard(int(found[1]), int(found[2])) if found else None
    if shard is None or shard.index >= shard.count or shard.count > 99_999:
        raise ConfigError(
            f"--shard is {text!r}; needed is i/n with i from 0 to n - 1, for example 0/8 to 7/8. "
            "In a SLURM array: --shard $SLURM_ARRAY_TASK_ID/8 with --array=0-7."
        )
    return shard


def shard_prefix(prefix: Path, shard: Shard) -> Path:
    """Return the PREFIX of one part."""
    return Path(f"{prefix}.shard-{shard.index:05d}-of-{shard.count:05d}")


def shard_prefixes(prefix: Path) -> list[Path]:
    """Return the PREFIXes of all parts of `prefix`, or none if there are no parts.

    Raises:
        DataFormatError: Some parts are missing or unfinished, or belong to different counts.
    """
    manifests = prefix.parent.glob(f"{prefix.name}.shard-*.manifest.json")
    names = [Path(str(path).removesuffix(".manifest.json")) for path in manifests]
    found = {name: match for name in names if (match := _PART.search(name.name))}
    counts = sorted({int(match[2]) for match in found.values()})
    if len(counts) > 1:
        raise DataFormatError(
            f"{prefix}: there are finished parts of {' and of '.join(map(str, counts))} shards. "
            "Remove those you do not mean, or name the parts one by one."
        )
    if not counts:
        return []
    parts = [shard_prefix(prefix, Shard(index, counts[0])) for index in range(counts[0])]
    missing = [str(i) for i, part in enumerate(parts) if not manifest_path(part).exists()]
    if missing:
        raise DataFormatError(
            f"{prefix}: of its {counts[0]} shards, {', '.join(missing[:20])} "
            f"{'is' if len(missing) == 1 else 'are'} not finished. Run `msm prep` again with "
            f"--shard {missing[0]}/{counts[0]}; finished shards are skipped."
        )
    return parts


def pieces_of(paths: list[Path], shard: Shard | None) -> list[Piece]:
    """Return what one shard reads of the inputs; without a shard all of them.

    Raises:
        ConfigError: Standard input cannot be cut.
    """
    if shard is None:
        return [Piece(path) for path in paths]
    if STDIN in paths:
        raise ConfigError(
            "--shard cannot cut standard input into parts. Write it to a file first, or leave "
            "--shard out."
        )
    sizes = [path.stat().st_size for path in paths]
    total = sum(sizes)
    low, high = (total * edge // shard.count for edge in (shard.index, shard.index + 1))
    is_last = shard.index == shard.count - 1
    pieces = []
    begin = 0
    for path, size in zip(paths, sizes, strict=True):
        end = begin + size
        begins_here = low <= begin < high or (is_last and begin == total)
        if format_of(path) != "jsonl" or (low <= begin and end <= high):
            if begins_here:
                pieces.append(Piece(path))
        elif begin < high and low < end:
            pieces.append(Piece(path, max(low - begin, 0), min(high, end) - begin))
        begin = end
    return pieces
