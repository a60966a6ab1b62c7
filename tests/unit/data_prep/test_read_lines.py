import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.read_lines import LineReader, check_inputs, hash_input
from megatron_msm.errors import DataFormatError


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")), max_size=10),
    ends_with_newline=st.booleans(),
    limit=st.integers(1, 50),
)
def test_every_byte_belongs_to_one_line(
    lines: list[bytes], ends_with_newline: bool, limit: int
) -> None:
    content = b"\n".join(lines) + b"\n" * ends_with_newline
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(content)
        sizes: list[int] = []
        reader = LineReader([path], max_line_bytes=limit, on_bytes=sizes.append)
        read = list(reader)
    assert sum(sizes) == len(content)
    assert [line.number for line in read] == list(range(1, len(read) + 1))
    for line, size in zip(read, sizes, strict=True):
        raw = content[line.byte_offset : line.byte_offset + size]
        assert raw.startswith(line.raw)
        assert line.over_limit is not None or line.raw == raw
        assert (line.over_limit is not None) == (len(raw.removesuffix(b"\n")) > limit)
    assert len(read) == len(content.split(b"\n")) - content.endswith(b"\n") - (not content)


def test_files_are_hashed_while_they_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for number, path in enumerate(paths):
        path.write_text(f"{number}\n" * 1000)
    reader = LineReader(paths, max_line_bytes=10)
    assert [line.file for line in reader].count(str(paths[1])) == 1000
    assert reader.entries == [hash_input(path) for path in paths]


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "a.jsonl.gz").touch()
    cases = {
        "no such file": [tmp_path / "x.jsonl"],
        "a folder, where a JSONL file is needed": [tmp_path],
        "given twice": [tmp_path / "a.jsonl", tmp_path / ".." / tmp_path.name / "a.jsonl"],
        "gz files cannot be read yet": [tmp_path / "a.jsonl.gz"],
    }
    for message, paths in cases.items():
        with pytest.raises(DataFormatError, match=message):
            check_inputs(paths)
