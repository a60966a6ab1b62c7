"""A sample of the documents of an input, for comparing tokenizer back ends on it."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from data_prep.reading.blocks import Block, num_lines
from data_prep.reading.inputs import STDIN, format_of
from data_prep.reading.parse_lines import parse_documents
from data_prep.reading.records import Document
from data_prep.reading.shards import FilePart

_OF_FIRST_BLOCK = 32
_NUM_SAMPLES = 16
_SAMPLE_BYTES = 64 << 10
_OF_EACH_SAMPLE = 2
_MOST_CHARACTERS = 8_000
"""Characters of a text; a sample takes what `tokenizers` encodes in a fraction of a second."""


def sample_texts(
    first: Sequence[Block], parts: Sequence[FilePart], *, text_field: str = "text"
) -> list[bytes]:
    """Return the beginnings of some documents, as UTF-8.

    They come from the first block, and from evenly spaced offsets in the plain files.
    """
    texts = [text for block in first for text in islice(_texts(block, text_field), _OF_FIRST_BLOCK)]
    plain = [part.path for part in parts if part.path != STDIN and format_of(part.path) == "jsonl"]
    sizes = [path.stat().st_size for path in plain]
    step = max(sum(sizes) // _NUM_SAMPLES, _SAMPLE_BYTES)
    begin, at = 0, step
    for path, size in zip(plain, sizes, strict=True):
        while at < begin + size:
            texts += islice(_texts(_block_at(path, at - begin), text_field), _OF_EACH_SAMPLE)
            at += step
        begin += size
    return [text[:_MOST_CHARACTERS].encode() for text in texts]


def _block_at(path: Path, offset: int) -> Block:
    """Return the whole lines near an offset; none if they are longer than the window."""
    with path.open("rb") as file:
        file.seek(offset)
        window = file.read(_SAMPLE_BYTES)
    data = window[window.find(b"\n") + 1 : window.rfind(b"\n") + 1]
    return Block(str(path), 0, offset, data, num_lines(data), len(data))


def _texts(block: Block, text_field: str) -> Iterator[str]:
    for item in parse_documents(block.lines(), text_field=text_field):
        if isinstance(item, Document):
            yield item.text
