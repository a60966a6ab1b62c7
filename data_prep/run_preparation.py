"""What `msm prep docs` and `msm prep chats` share: options, what is already there, and the loop.

The loop: blocks of lines in, rows and rejects out, in line order.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data_prep.reading.blocks import Block
from data_prep.reading.read_lines import MAX_LINE_BYTES, LineReader
from data_prep.reading.shards import Shard
from data_prep.writing.dataset_writer import DatasetWriter, refuse_foreign_files
from data_prep.writing.encoded_block import EncodedBlock
from data_prep.writing.prepared import Prepared
from data_prep.writing.recipe import Recipe, find_finished
from data_prep.writing.workers import Task, in_order
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.rejects import read_rejects
from megatron_msm.progress import SILENT, Progress

_SCAN_REJECTS = 1_000
"""A run that has failed reads on, without encoding, until it knows this many rejects."""
_SHOWN_REJECTS = 5

EncodeBlock = Callable[[Task], EncodedBlock]


@dataclass(frozen=True, kw_only=True)
class PreparationOptions:
    """The options of every preparation."""

    tokenizer: Path
    out: Path
    carry: tuple[str, ...] = ()
    """Further fields of the input line that become columns of the provenance."""
    max_rejects: int = 0
    max_line_bytes: int = MAX_LINE_BYTES
    shard: Shard | None = None
    workers: int | None = None
    """None: as many as there are CPUs, and none for a small input."""
    force: bool = False

    @property
    def prefix(self) -> Path:
        """The prefix that is written."""
        return self.out if self.shard is None else self.shard.prefix(self.out)


def already_prepared(
    options: PreparationOptions, recipe: Recipe, reader: LineReader
) -> Prepared | None:
    """Return the dataset where it is finished already and was made alike.

    Raises:
        DataFormatError: Something else is at the prefix, and `force` is not given.
    """
    if options.force:
        return None
    if options.shard is None:
        refuse_foreign_files(options.prefix)
    finished = find_finished(options.prefix, recipe, reader, max_rejects=options.max_rejects)
    if finished is None:
        return None
    return Prepared(options.prefix, finished, already_made=True)


def fill(
    writer: DatasetWriter,
    blocks: Iterable[Block],
    encode: EncodeBlock,
    *,
    max_rejects: int,
    num_workers: int,
    progress: Progress = SILENT,
) -> None:
    """Encode all blocks into the writer.

    Once more than `max_rejects` lines are rejected the run has failed. The rest of the input is
    then only parsed, so that the message can tell about all the bad lines at once.

    Args:
        writer: Of the dataset.
        blocks: The input.
        encode: What is done with a block, in a worker process if there are any.
        max_rejects: Lines that may be rejected.
        num_workers: Worker processes; one for none.
        progress: Told the number of input bytes done and rows made.

    Raises:
        DataFormatError: Too many lines were rejected.
    """
    tasks = (Task(block, rejects_only=writer.num_rejects > max_rejects) for block in blocks)
    for block, encoded in in_order(tasks, encode, num_workers=num_workers):
        writer.add_block(encoded, num_lines=block.num_lines)
        progress.advance(block.num_bytes, rows=len(encoded.lengths))
        if writer.num_rejects >= max(_SCAN_REJECTS, max_rejects + 1):
            break
    if writer.num_rejects > max_rejects:
        raise _too_many_rejects(writer, max_rejects)


def _too_many_rejects(writer: DatasetWriter, max_rejects: int) -> DataFormatError:
    kept = writer.keep_rejects()
    count = writer.num_rejects
    shown = "\n".join(_shown(kept))
    return DataFormatError(
        f"{count} of the {writer.counts.lines} lines read cannot become rows, and --max-rejects "
        f"allows {max_rejects}:\n{shown}\nAll of them are in {kept}. Repair the lines, or leave "
        f"them out with --max-rejects {count}."
    )


def _shown(path: Path) -> Iterator[str]:
    rejects = read_rejects(path)
    for reject in islice(rejects, _SHOWN_REJECTS):
        yield f"  {reject.file}:{reject.line}: {reject.reason}"
    rest = sum(1 for _ in rejects)
    if rest:
        yield f"  and {rest} more"
