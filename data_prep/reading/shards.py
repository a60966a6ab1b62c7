"""`--shard i/n`: the i-th of n parts of the input, by bytes and in order.

The inputs, end to end, are cut into n stretches of equal size. A line of a plain file belongs to
the stretch that its first byte is in; a compressed file or a table belongs, whole, to the stretch
that it begins in. So shard after shard gives the rows in the order of one run over everything.

A shard that begins inside a file reads what is before it, to count its lines and to hash it: its
rows name their true line numbers, and a merge can prove that the shards come from the same file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_prep.reading.inputs import STDIN, format_of
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import sha256_of_json
from megatron_msm.formats.manifest import ShardEntry


@dataclass(frozen=True)
class Shard:
    """One of several parts."""

    index: int
    """Counted from 0."""
    count: int

    def prefix(self, out: Path) -> Path:
        """Return the prefix of this shard of the dataset `out`."""
        return out.with_name(f"{out.name}-{self.index:05d}-of-{self.count:05d}")

    def entry(self, inputs: list[Path]) -> ShardEntry:
        """Return what the manifest says about it."""
        listed = [(str(path), path.stat().st_size) for path in inputs]
        return ShardEntry(index=self.index, count=self.count, inputs_sha256=sha256_of_json(listed))


class FilePart(NamedTuple):
    """The lines of a file that begin at `start` or later, and before `stop`."""

    path: Path
    start: int = 0
    stop: int | None = None
    """None: to the end."""

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the file."""
        return self.start == 0 and self.stop is None


def parse_shard(text: str) -> Shard:
    """Read "i/n". Shards count from 0; n/n is 0/n, so that arrays may count from 1 as well.

    Raises:
        ConfigError: It is not of that form.
    """
    index, separator, count = text.partition("/")
    if (
        not (separator and index.isdecimal() and count.isdecimal())
        or not 0 <= int(index) <= int(count)
        or int(count) == 0
    ):
        raise ConfigError(
            f"--shard {text}: needed is i/n with i from 0 to n - 1, for example 0/16, in an array "
            "job $SLURM_ARRAY_TASK_ID/16."
        )
    return Shard(int(index) % int(count), int(count))


def parts_of(inputs: list[Path], shard: Shard | None) -> list[FilePart]:
    """Return what a shard reads of the inputs, or all of them.

    Raises:
        ConfigError: Standard input cannot be cut into shards.
    """
    if shard is None:
        return [FilePart(path) for path in inputs]
    if STDIN in inputs:
        raise ConfigError("--shard: standard input cannot be cut. Write it to a file first.")
    sizes = [path.stat().st_size for path in inputs]
    total = sum(sizes)
    low, high = (total * cut // shard.count for cut in (shard.index, shard.index + 1))
    is_last = shard.index == shard.count - 1
    parts, begin = [], 0
    for path, size in zip(inputs, sizes, strict=True):
        end = begin + size
        if size == 0 or format_of(path) != "jsonl":
            if low <= begin < high or (is_last and begin == high):
                parts.append(FilePart(path))
        elif begin < high and low < end:
            stop = None if end <= high else high - begin
            parts.append(FilePart(path, max(low - begin, 0), stop))
        begin = end
    return parts
